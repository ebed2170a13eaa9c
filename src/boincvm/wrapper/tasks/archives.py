"""Unpacks and packs a job's archives. Most jobs have none, and import nothing for it."""

from typing import TYPE_CHECKING

from boincvm.job.boinc_settings import BoincSettings
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.tasks.resolve import JobContext

if TYPE_CHECKING:  # few jobs have patterns
    from boincvm.job.name_pattern import NamePattern


class JobArchives:
    """Unpacks the input archives of a job, and packs its output archive."""

    def __init__(self, settings: BoincSettings, context: JobContext) -> None:
        """Compile the patterns. Raises JobFileError for an invalid regular expression."""
        self._settings = settings
        self._context = context
        self._patterns: tuple[NamePattern, ...] = ()
        if settings.zip_output is not None:
            from boincvm.wrapper.slot.archives import compile_patterns

            self._patterns = compile_patterns(settings.zip_output.patterns)

    async def unpack(self) -> None:
        """Unpack the input archives, before the first task of the first run.

        Raises InputFileError, HostDiskFullError.
        """
        if not self._settings.unzip_input and self._settings.zip_output is None:
            return
        from boincvm.wrapper.slot.archives import remember_files, unzip_input

        slot = self._context.slot
        for name in self._settings.unzip_input:
            await in_side_thread(unzip_input, slot / name, self._context.resolve(name), slot)
        if self._settings.zip_output is not None:
            remember_files(slot)

    async def pack(self) -> None:
        """Pack the outputs, after the last task.

        Raises OutputFileError, HostDiskFullError, HostError.
        """
        if self._settings.zip_output is None:
            return
        from boincvm.wrapper.slot.archives import zip_output

        archive = self._context.output(self._settings.zip_output.zip_name)
        await in_side_thread(zip_output, self._context.slot, archive, self._patterns)
