"""As in a container: a user whom the system does not know, no home, 512 MB, one folder to write.

Where the test may (as root, in CI) the rest of the file system is read-only, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples" / "photos"

# The interpreter may lie where the other user cannot read; what is needed of it is read before.
CODE = """
import os, resource, sys
from deeplab.cli import run

photos, first, second, user = *sys.argv[1:4], int(sys.argv[4])
kinds = "overlay,mask,cutout,json"
assert run(["segment", photos + "/cat.jpg", "-o", first, "--save", kinds]) == 0
if user:
    os.setgroups([]); os.setgid(user); os.setuid(user)
limit = 512_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
os.umask(0o022)
code = run(["segment", photos, "-o", second, "--save", kinds, "--overwrite", "--workers", "64"])
# Not getrusage: that counts the process that started this one, too.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("peak", int(peak.split()[1]) * 1024)
sys.exit(code)
"""


READ_ONLY = """
mount --make-rprivate /
for folder in "$1" "$2"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
shift 2
exec "$@"
"""


def confine(folders: list[Path]) -> list[str]:
    """Return what starts a program for which all but these folders is read-only; [] where none."""
    start = ["unshare", "--mount", "sh", "-ec", READ_ONLY, "sh", *map(str, folders)]
    try:
        probe = [*start, "sh", "-c", "! touch /here 2>/dev/null"]
        works = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return start if works else []


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="users and limits as Linux has them")
def test_the_demo_works_in_a_container(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder == tmp_path or folder.name.startswith(("pytest-", "popen-")):  # for one user
            folder.chmod(0o755)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    user = 54321 if os.getuid() == 0 else 0
    if user:
        os.chown(second, user, user)
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"DEEPLAB_MODEL_PATH": "/root/models", "OMP_NUM_THREADS": "1"}
    arguments = [str(PHOTOS), str(first), str(second), str(user)]
    done = subprocess.run(
        [*confine([first, second]), sys.executable, "-c", CODE, *arguments],
        cwd="/", env=environment, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    photos = {path.stem for path in PHOTOS.glob("*.jpg")}
    ends = (".overlay.jpg", ".mask.png", ".cutout.png", ".json")
    assert {path.name for path in second.iterdir()} == {
        name + end for name in photos for end in ends
    }
    assert int(done.stdout.split()[-1]) < 512_000_000
    if user:
        assert {path.stat().st_uid for path in second.iterdir()} == {user}
