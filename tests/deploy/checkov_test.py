"""checkov on the rendered manifests and the Dockerfiles: it finds what deploy/.checkov.yaml justifies, and nothing else.

Environment: ACUITY_TOOLS as for manifests_test.py; ACUITY_CHECKOV, the environment that `scripts/setup deploy` filled.
"""
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

from manifests_test import OVERLAYS, ROOT, render, the

CONFIG = ROOT / "deploy/.checkov.yaml"
DOCKERFILES = ("Dockerfile", "deploy/haproxy/Dockerfile")


def checkov(folder, *arguments):
    return subprocess.run([pathlib.Path(os.environ["ACUITY_CHECKOV"], "bin/checkov"), "-d", folder, *map(str, arguments)],
                          cwd=folder, capture_output=True, text=True, timeout=300)


class CheckovTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for overlay in OVERLAYS:
            cls.write(overlay, render(overlay))
        for name in DOCKERFILES:
            path = cls.folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path)

    @classmethod
    def write(cls, name, resources):
        path = cls.folder / name / "rendered.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump_all(resources))
        return path

    def test_every_finding_is_justified_and_every_justification_is_needed(self):
        deployment = copy.deepcopy(the(render("cpu"), "Deployment"))
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
        planted = self.write("planted", [deployment])
        self.addCleanup(shutil.rmtree, planted.parent)
        run = checkov(self.folder, "--framework", "kubernetes", "dockerfile", "--skip-download", "--output", "json")
        reports = {report["check_type"]: report["results"] for report in json.loads(run.stdout)}
        self.assertEqual(set(reports), {"kubernetes", "dockerfile"}, run.stderr)
        failed = {}
        for finding in reports["kubernetes"]["failed_checks"] + reports["dockerfile"]["failed_checks"]:
            failed.setdefault(finding["file_path"].split("/")[1], set()).add(finding["check_id"])
        passed = {(c["file_path"].split("/")[1], c["check_id"]) for c in reports["kubernetes"]["passed_checks"]}
        justified = set(yaml.safe_load(CONFIG.read_text())["skip-check"])
        self.assertEqual(failed.pop("planted"), justified | {"CKV_K8S_16"})
        self.assertEqual(failed, {overlay: justified for overlay in OVERLAYS})
        for overlay in OVERLAYS:
            self.assertIn((overlay, "CKV_K8S_16"), passed)
        self.assertEqual({c["file_path"].lstrip("/") for c in reports["dockerfile"]["passed_checks"]},
                         {f"images/{name}" for name in DOCKERFILES})
        print(f"{len(reports['kubernetes']['passed_checks'])} checks of manifests and "
              f"{len(reports['dockerfile']['passed_checks'])} of Dockerfiles pass; justified: {sorted(justified)}")

    def test_the_configuration_is_one_that_checkov_takes(self):
        run = checkov(self.folder, "--config-file", CONFIG)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("Failed checks: 0", run.stdout)

    def test_each_skip_has_its_reason(self):
        skips = CONFIG.read_text().split("skip-check:\n")[1]
        self.assertRegex(skips, r"\A(?:(?:  # .+\n)+  - CKV_\w+\n)+\Z")
        self.assertEqual(len(re.findall("- CKV", skips)), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
