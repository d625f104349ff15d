"""Writes the image's bill of materials, CycloneDX 1.5 JSON, to standard output.

    sbom.py --dpkg-status FILE --wheels LOCK --project CMakeLists.txt

Every Debian package that is installed in the image, every wheel that a library was taken from (with the hash that
its lock pins) and Acuity itself. Deterministic: no time, no random serial number.
"""
import argparse
import json
import pathlib
import re


def debian_packages(status):
    """The installed packages of a dpkg status file, sorted by name."""
    for block in sorted(status.strip().split("\n\n")):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.M))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
        purl_version = version.replace(":", "%3A").replace("+", "%2B")
        purl_name = name.replace("+", "%2B")
        yield {"type": "library", "bom-ref": f"deb:{name}:{arch}", "name": name, "version": version,
               "purl": f"pkg:deb/debian/{purl_name}@{purl_version}?arch={arch}&distro=debian-12"}


def wheels(lock):
    for name, version, digest in re.findall(r"^(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})$", lock, re.M):
        yield {"type": "library", "bom-ref": f"wheel:{name}", "name": name, "version": version,
               "hashes": [{"alg": "SHA-256", "content": digest}], "purl": f"pkg:pypi/{name}@{version}"}


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--dpkg-status", "--wheels", "--project"):
        parser.add_argument(flag, type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    version = re.search(r"project\(acuity VERSION (\S+)", arguments.project.read_text())[1]
    packages = list(debian_packages(arguments.dpkg_status.read_text()))
    pinned = list(wheels(arguments.wheels.read_text()))
    if not packages or not pinned:
        raise SystemExit("sbom: the dpkg status or the lock names no package")
    product = {"type": "application", "bom-ref": "acuity", "name": "acuity", "version": version,
               "licenses": [{"license": {"id": "Apache-2.0"}}]}
    print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
                      "metadata": {"component": product}, "components": packages + pinned}, indent=1))


if __name__ == "__main__":
    main()
