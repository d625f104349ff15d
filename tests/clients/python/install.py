"""Installs clients/python as a user would, into a virtual environment that sees the tests' packages (which must satisfy
the dependencies that it declares: there is no network), and checks its types and its source distribution.

    install.py SOURCE-ROOT FOLDER

FOLDER is made anew: tree/ has the copy that pip builds, venv/ the environment.
"""

import ast
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

root, folder = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
shutil.rmtree(folder, ignore_errors=True)
tree = folder / "tree"
ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "v1")
shutil.copytree(root / "clients/python", tree / "clients/python", ignore=ignored)
shutil.copytree(root / "proto", tree / "proto")

for source in (tree / "clients/python").rglob("*.py"):
    ast.parse(source.read_text(), str(source), feature_version=(3, 9))

environment = folder / "venv"
venv.create(environment)
python = environment / "bin/python"
site = next((environment / "lib").glob("python*/site-packages"))
(site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")


def run(*command, **kwargs):
    print("$", *map(str, command), flush=True)
    subprocess.run(list(map(str, command)), check=True, **kwargs)


pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
run(*pip, "install", "--quiet", "--no-build-isolation", "--no-index", tree / "clients/python")
run(python, "-c", "import acuity; assert acuity.__file__.startswith(%r), acuity.__file__" % str(site))
run(python, "-m", "mypy", "--config-file", tree / "clients/python/pyproject.toml", "--cache-dir", folder.parent / "mypy",
    "-p", "acuity", cwd=folder)
run(python, "-m", "mypy", "--strict", "--cache-dir", folder.parent / "mypy",
    *sorted((tree / "clients/python/examples").glob("*.py")), cwd=folder)

# A source distribution carries the proto file: it builds without the repository around it.
run(python, "setup.py", "--quiet", "sdist", "--dist-dir", folder, cwd=tree / "clients/python")
(archive,) = folder.glob("acuity-*.tar.gz")
shutil.unpack_archive(archive, folder / "sdist")
(unpacked,) = (folder / "sdist").iterdir()
run(python, "setup.py", "--quiet", "build_py", "--build-lib", folder / "built", cwd=unpacked)
assert (folder / "built/acuity/v1/acuity_pb2.pyi").is_file()
