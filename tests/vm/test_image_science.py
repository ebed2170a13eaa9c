"""An image of packages that work only once they are configured: each computes a known result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.bench import Bench, machines_beneath, until, wait_for_end
from support.image_home import boincvm_image, new_home
from support.images import earlier_digest, ready_image
from support.killed_on_failure import killed_on_failure

pytestmark = [pytest.mark.timeout(1800), pytest.mark.first]

NAME = "test-science"
PACKAGES = (
    *("r-base-core", "default-jdk-headless", "octave", "gnuplot-nox", "gromacs"),
    *("openmpi-bin", "libopenmpi-dev", "python3-scipy", "gcc", "libc6-dev"),
)
BUILD_LIMIT = 1500.0
"""Seconds that building it may take where nothing is downloaded yet."""
MACHINE = ("--image", NAME, "--memory", "1G", "--cpus", "2")

JAVA = """\
import java.math.BigInteger;
public class Main {
    public static void main(String[] words) { System.out.println(BigInteger.TWO.pow(100)); }
}
"""
SUM = """\
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, mine, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    mine = rank + 20;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0) printf("%d processes, sum %d\\n", size, sum);
    MPI_Finalize();
    return 0;
}
"""
PRIMES = """\
#include <math.h>
#include <stdio.h>
int main(void) {
    int count = 0;
    for (int number = 2; number < 10000; number++) {
        int divisor = 2;
        while (divisor <= (int)sqrt(number) && number % divisor) divisor++;
        count += divisor > (int)sqrt(number);
    }
    printf("%d\\n", count);
    return 0;
}
"""
SCIPY = """\
from scipy import linalg, optimize
print(f"{optimize.brentq(lambda x: x * x - 2, 0, 2):.6f} {linalg.det([[1.0, 2], [3, 4]]):.1f}")
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Return the image, which takes minutes and is built only if it is missing or out of date."""
    ready_image(tmp_path_factory, NAME, packages=PACKAGES, limit=BUILD_LIMIT)


@pytest.fixture(scope="module")
def output(image: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the output of each program, all run in one machine, because loading takes long."""
    bench = Bench(tmp_path_factory.mktemp("science") / "bench")
    files = {"Main.java": JAVA, "sum.c": SUM, "primes.c": PRIMES, "roots.py": SCIPY}
    programs = {
        "R": "Rscript -e 'x <- 1:10; cat(coef(lm(3 * x + 2 ~ x)))'",
        "Java": "javac Main.java && java Main",
        "octave": "octave --no-gui --eval 'printf(\"%d\\n\", round(det(magic(3))))' 2>&1",
        "gnuplot": "gnuplot -e 'set terminal svg; plot x**2' | grep -c gnuplot_plot_1",
        # SPC water at 1 g/ml: the box that GROMACS documents to hold 216 molecules.
        "GROMACS": "gmx -quiet solvate -cs spc216 -box 1.86206 1.86206 1.86206 -o w.gro"
        " >log 2>&1; sed -n 2p w.gro",
        "OpenMPI": "mpicc sum.c -o sum && mpirun --allow-run-as-root -np 2 ./sum",
        "SciPy": "python3 roots.py",
        "Perl": "perl -MMath::BigInt -e 'print Math::BigInt->new(2) ** 100'",
        "C": "gcc -O2 primes.c -lm -o primes && ./primes",
        "dpkg": "dpkg --audit; dpkg-query -f '${db:Status-Status}\\n' -W | sort -u",
        "files": "dpkg --verify | grep '^..5' || echo as in their packages",
        "certificates": "ls /etc/ssl/certs/*.0 | wc -l;"
        " keytool -list -cacerts -storepass changeit | grep -c trustedCertEntry",
    }
    script = "".join(f"echo '== {name}'\n{command}\n" for name, command in programs.items())
    options = []
    for name, text in {**files, "all.sh": script}.items():
        (bench.work / name).write_text(text)
        options += ["--input", name]
    try:
        done = bench.run(*MACHINE, *options, "--", "sh", "all.sh", limit=900)
    finally:
        bench.stop_all()
    assert done.code == 0, done.stderr
    parts = done.stdout.decode().split("== ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("R", "2 3"),
        ("Java", "1267650600228229401496703205376"),
        ("gnuplot", "1"),
        ("GROMACS", "648"),
        ("OpenMPI", "2 processes, sum 41"),
        ("SciPy", "1.414214 -2.0"),
        ("Perl", "1267650600228229401496703205376"),
        ("C", "1229"),
        ("dpkg", "installed"),
        ("files", "as in their packages"),
    ],
)
def test_a_program_computes_what_is_known(
    output: dict[str, str], program: str, answer: str
) -> None:
    assert output[program].strip() == answer


def test_octave_ends_as_it_should(output: dict[str, str]) -> None:
    lines = output["octave"].splitlines()
    assert "-360" in lines
    assert not [line for line in lines if "error" in line or "exception" in line]


def test_certificates_are_there_for_openssl_and_for_java(output: dict[str, str]) -> None:
    for_openssl, for_java = map(int, output["certificates"].split())
    assert for_openssl > 100
    assert for_java > 100


def test_the_image_says_that_it_is_configured(image: None) -> None:
    with ImageStore().open(NAME) as opened:
        assert opened.manifest.configured
        assert not [path for path in opened.directory.iterdir() if path.suffix == ".raw"]


def test_two_builds_of_a_configured_image_are_alike(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has what contains most dates: Java's trust store, font caches."""
    packages = ("default-jre-headless", "fontconfig")
    options = [word for package in packages for word in ("--package", package)]
    built = boincvm_image(new_home(tmp_path / "another place"), "build", *options, "alike")
    digest = str(built["digest"])
    assert earlier_digest(tmp_path_factory, digest, "test-alike", packages) == digest


def test_a_build_that_is_interrupted_while_packages_are_configured(tmp_path: Path) -> None:
    environment = new_home(tmp_path / "home")
    command = [sys.executable, "-m", "boincvm.cli.main", "image", "build"]
    with killed_on_failure(
        subprocess.Popen(
            [*command, "--package", "fontconfig", "interrupted"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    ) as build:
        until(lambda: machines_beneath(tmp_path), limit=BUILD_LIMIT)
        (machine,) = machines_beneath(tmp_path)
        end = os.pidfd_open(machine)
        build.send_signal(signal.SIGTERM)
        _, errors = build.communicate(timeout=60)
        assert build.returncode == 128 + signal.SIGTERM, errors.decode()
    wait_for_end(end)
    builds = tmp_path / "home/data/images/builds"
    assert [path.name for path in builds.iterdir()] == ["lock"]
