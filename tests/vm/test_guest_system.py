"""A guest has what every Linux system has: devices, directories, names, limits, certificates."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bench import Bench

STREAMS = r"""
python3 -c 'open("/dev/stdout","w").write("python\n")'
bash -c 'cat <(echo substituted)'
echo given | cat /dev/stdin
echo teed | tee /dev/stderr /dev/fd/1
echo copied | dd of=/dev/stdout status=none
echo seen | cat /proc/self/fd/0
exec 5<<<descriptor; cat /dev/fd/5
echo appended >>/dev/stdout
cat /dev/stdin
"""


def test_standard_streams_have_their_names(bench: Bench) -> None:
    done = bench.run("--", "bash", "-ec", STREAMS, text=b"last\n")
    assert (done.code, done.stderr) == (0, "teed\n")
    words = "python substituted given teed teed copied seen descriptor appended last"
    assert done.stdout.decode().split() == words.split()


def test_a_stream_by_its_name_is_the_stream(bench: Bench) -> None:
    script = "for i in 1 2; do echo $i >/dev/stdout; echo e$i >/dev/stderr; done; exec >&-"
    done = bench.run("--", "bash", "-c", f"{script}; test -e /dev/fd/1")
    assert (done.code, done.stdout, done.stderr) == (1, b"1\n2\n", "e1\ne2\n")


SYSTEM = r"""
fail() { echo "$*"; }
is() { [ "$(eval "$1" 2>&1)" = "$2" ] || fail "$1: $(eval "$1" 2>&1), not $2"; }
for name in null zero full random urandom tty ptmx; do is "stat -c %a /dev/$name" 666; done
is 'stat -c %a /dev/shm' 1777
is 'stat -c %a /tmp' 1777
is 'stat -c %a /var/tmp' 1777
is 'stat -c %a /run/lock' 1777
is 'stat -c %a:%G /var/mail' 2775:mail
is 'stat -f -c %T /dev/shm' tmpfs
is 'stat -f -c %T /run' tmpfs
is 'stat -f -c %T /dev/mqueue' mqueue
is 'readlink -f /var/run' /run
is 'readlink -f /var/lock' /run/lock
is 'cmp /etc/mtab /proc/self/mounts' ''
is 'test -f /etc/localtime; echo $?' 0
is 'cat /etc/timezone' Etc/UTC
is 'wc -c </etc/machine-id' 33
is 'grep -cE "^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$" /etc/machine-id' 1
is 'getent services http/tcp | cut -d" " -f1' http
is 'getent protocols tcp | cut -d" " -f1' tcp
is 'getent hosts "$(hostname)" | cut -d" " -f1' 127.0.0.1
is 'getent ahosts localhost >/dev/null; echo $?' 0
is 'getent passwd nobody | cut -d: -f3' 65534
is 'locale charmap' UTF-8
is 'ulimit -Sn' 1024
is 'ulimit -Hn' 524288
is 'ulimit -s' 8192
is 'ulimit -c' 0
is umask 0022
is 'echo $HOME:$USER:$LOGNAME:$SHELL:$LANG' /root:root:root:/bin/bash:C.UTF-8
is 'grep -cxE "(/usr)?/bin/bash" /etc/shells' 2
is 'cat /proc/sys/kernel/printk | cut -f1' 1
python3 - <<'END'
import datetime, multiprocessing, os, pty, socket, ssl, tempfile, zoneinfo
master, slave = pty.openpty()
assert os.ttyname(slave).startswith("/dev/pts/")
multiprocessing.Lock()
with tempfile.TemporaryFile() as file:
    file.write(b"x")
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        with socket.socket(family) as client:
            client.connect(server.getsockname())
assert socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
assert zoneinfo.ZoneInfo("Europe/Paris").utcoffset(datetime.datetime(2024, 7, 1)).seconds == 7200
paths = ssl.get_default_verify_paths()
bundle = open("/etc/ssl/certs/ca-certificates.crt").read()
context = ssl.create_default_context()
context.load_verify_locations(cadata=bundle)
assert context.cert_store_stats()["x509_ca"] > 100, context.cert_store_stats()
hashed = [name for name in os.listdir(paths.capath) if name.endswith(".0")]
assert len(hashed) > 100, hashed
for name in hashed:
    assert os.path.isfile(f"{paths.capath}/{name}"), name
END
"""


def test_what_every_linux_has(bench: Bench) -> None:
    (bench.work / "system").write_text(SYSTEM)
    done = bench.run("--input", "system", "--", "bash", "system")
    assert (done.code, done.stdout, done.stderr) == (0, b"", "")


def test_each_machine_has_an_identity_of_its_own(bench: Bench) -> None:
    found = {bench.run("--", "cat", "/etc/machine-id").stdout for _ in range(2)}
    assert len(found) == 2


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Return a directory with ca.pem, and a certificate that it has issued to `host.test`."""
    directory = tmp_path / "authority"
    directory.mkdir()
    (directory / "extensions").write_text("subjectAltName=DNS:host.test\n")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions"
    for command in (
        f"req -x509 {key} -subj /CN=test-ca -keyout ca.key -out ca.pem",
        f"req {key} -subj /CN=host.test -keyout host.key -out host.csr",
        f"x509 -req -in host.csr {sign} -out host.pem",
    ):
        words = ["openssl", *command.split()]
        subprocess.run(words, cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def https_port(authority: Path) -> Iterator[int]:
    """Return the port of a loopback server that sends `hello` over TLS."""

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "host.pem", authority / "host.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


CLIENT = r"""
echo "10.0.2.2 host.test" >>/etc/hosts
cat >get.py <<'END'
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
except urllib.error.URLError as error:
    print(error.reason.verify_message)
END
python3 get.py "$1"
cp ca.pem /usr/local/share/ca-certificates/test.crt
update-ca-certificates >/dev/null
python3 get.py "$1"
"""


def test_https_is_verified_by_the_systems_authorities(
    bench: Bench, authority: Path, https_port: int
) -> None:
    (bench.work / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    url = f"https://host.test:{https_port}/"
    # Debian's program looks at some 140 certificates, which takes 40 s under emulation, and longer
    # on a busy host.
    command = ("--network", "--input", "ca.pem", "--", "sh", "-ec", CLIENT, "client", url)
    done = bench.run(*command, limit=250)
    lines = done.stdout.decode().splitlines()
    assert lines == ["unable to get local issuer certificate", "hello"], done.stderr
