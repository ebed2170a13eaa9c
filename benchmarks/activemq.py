"""A real ActiveMQ for tests and benchmarks, with a directory and a port of its own."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from benchmarks.rabbitmq import LOGIN, PASSCODE, reader_of

START_LIMIT = 90.0
LIBRARIES = Path("/usr/share/activemq/lib")
HEAP = 256
"""MiB; enough for a thousand connections."""
# Without the first one a message waits up to 40 ms for the previous one's acknowledgement.
_OPTIONS = "transport.tcpNoDelay=true&amp;maximumConnections=20000"
_STARTED = re.compile(r"Listening for connections at: stomp\+nio(?:\+ssl)?://\S+?:(\d+)")
_CONFIGURATION = """\
<beans xmlns="http://www.springframework.org/schema/beans"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.springframework.org/schema/beans
        http://www.springframework.org/schema/beans/spring-beans.xsd
        http://activemq.apache.org/schema/core
        http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="localhost"
      useJmx="false" persistent="false" schedulerSupport="false"
      dataDirectory="{directory}/data">
    <plugins>
      <simpleAuthenticationPlugin anonymousAccessAllowed="false">
        <users>
          <authenticationUser username="{login}" password="{passcode}" groups="users"/>
        </users>
      </simpleAuthenticationPlugin>
    </plugins>
    {tls}
    <transportConnectors>
      <transportConnector uri="{scheme}://127.0.0.1:{port}?{options}"/>
    </transportConnectors>
  </broker>
</beans>
"""
_TLS = """\
<sslContext>
      <sslContext keyStore="file:{store}" keyStoreType="PKCS12" keyStorePassword="{passcode}"/>
    </sslContext>"""
_LOGGING = """\
log4j.rootLogger=WARN,file
log4j.appender.file=org.apache.log4j.FileAppender
log4j.appender.file.File={directory}/log
log4j.appender.file.layout=org.apache.log4j.SimpleLayout
log4j.logger.org.apache.activemq.transport.TransportServerThreadSupport=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.SimpleLayout
"""


def _command(directory: Path, heap: int) -> list[str]:
    """Return the command of Java itself, because a daemon's script would leave it running."""
    return [
        "java",
        f"-Xmx{heap}m",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={directory}",
        f"-Dactivemq.home={LIBRARIES.parent}",
        f"-Dactivemq.base={directory}",
        f"-Dlog4j.configuration=file:{directory / 'log4j.properties'}",
        "-classpath",
        f"{LIBRARIES}/*:{LIBRARIES}/optional/*",
        "org.apache.activemq.console.command.ShellCommand",
        "start",
        f"xbean:file:{directory / 'activemq.xml'}",
    ]


@contextmanager
def activemq(
    directory: Path, port: int = 0, heap: int = HEAP, tls: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Run ActiveMQ within the block; yield its STOMP port and process id once it is ready.

    port: 0 for any. heap: MiB. tls: a certificate and its key (PKCS 12, locked with PASSCODE), if
    it is to accept TLS only. Messages are kept in memory only.
    """
    names = {
        "directory": directory,
        "login": LOGIN,
        "passcode": PASSCODE,
        "port": port,
        "options": _OPTIONS,
        "scheme": "stomp+nio+ssl" if tls else "stomp+nio",
        "tls": _TLS.format(store=tls, passcode=PASSCODE) if tls else "",
    }
    (directory / "activemq.xml").write_text(_CONFIGURATION.format(**names))
    (directory / "log4j.properties").write_text(_LOGGING.format(**names))
    server = subprocess.Popen(
        _command(directory, heap),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    alarm = Timer(START_LIMIT, server.kill)
    alarm.start()
    reader = reader_of(server)
    try:
        found = _port(server)
        alarm.cancel()
        reader.start()
        yield found, server.pid
    finally:
        alarm.cancel()
        server.kill()
        server.wait(START_LIMIT)
        if reader.is_alive():
            reader.join(START_LIMIT)
        if server.stdout is not None:
            server.stdout.close()


def _port(server: subprocess.Popen[str]) -> int:
    """Read the port from the server's own output."""
    output = ""
    for line in server.stdout or ():
        output += line
        match = _STARTED.search(line)
        if match:
            return int(match[1])
    raise RuntimeError(f"ActiveMQ did not start: {output[-2000:]}")
