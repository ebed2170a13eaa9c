"""When a job's archives are unpacked and packed. Most jobs have none, and load nothing for it."""

from boincvm.job.boinc_job import BoincJob
from boincvm.job.name_pattern import NamePattern
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.task_plan import Surroundings, output_path


class JobArchives:
    """`<unzip_input>` and `<zip_output>` of a job."""

    def __init__(self, job: BoincJob, around: Surroundings) -> None:
        """Raises JobFileError for a pattern that is no regular expression."""
        self._job = job
        self._around = around
        self._patterns: tuple[NamePattern, ...] = ()
        if job.zip_output is not None:
            from boincvm.wrapper.slot_archives import compile_patterns

            self._patterns = compile_patterns(job.zip_output.patterns)

    async def unpack(self) -> None:
        """Before the first task of the first run. Raises InputFileError, HostDiskFullError."""
        if not self._job.unzip_input and self._job.zip_output is None:
            return
        from boincvm.wrapper.slot_archives import remember_files, unzip_input

        slot = self._around.slot
        for name in self._job.unzip_input:
            await in_side_thread(unzip_input, slot / name, self._around.resolve(name), slot)
        if self._job.zip_output is not None:
            remember_files(slot)

    async def pack(self) -> None:
        """After the last task. Raises OutputFileError, HostDiskFullError, HostError."""
        if self._job.zip_output is None:
            return
        from boincvm.wrapper.slot_archives import zip_output

        archive = output_path(self._job.zip_output.zip_name, self._around)
        await in_side_thread(zip_output, self._around.slot, archive, self._patterns)
