"""docs/operations.md knows every flag of the daemon and every alert; the unit's drain fits its grace.

Environment: ACUITY_BIN the folder of acuityd.
"""
import os
import pathlib
import re
import subprocess
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs/operations.md").read_text()


class DocumentationTest(unittest.TestCase):
    def test_every_flag_has_a_row_with_its_default(self):
        help_ = subprocess.run([pathlib.Path(os.environ["ACUITY_BIN"], "acuityd"), "--help"], check=True,
                               capture_output=True, text=True).stdout
        # "  -h,--help", "  --listen ADDR=127.0.0.1:8700", "  --block-size INT:{8,16}=16"
        flags = set(re.findall(r"--[a-z][a-z-]+", " ".join(re.findall(r"^  (-\S+)", help_, re.M))))
        self.assertGreater(len(flags), 15)
        rows = dict(re.findall(r"^\| ((?:`--[a-z-]+`(?:, )?)+) \|([^|]*)\|", MANUAL, re.M))
        documented = {flag: default for cell, default in rows.items() for flag in re.findall(r"--[a-z-]+", cell)}
        self.assertLessEqual(flags, documented.keys())
        defaults = re.findall(r"^  (--[a-z-]+) (?!NAME=)[^=\n]*=(\S+)", help_, re.M)
        self.assertGreater(len(defaults), 10)
        for flag, default in defaults:
            self.assertIn(default, documented[flag], flag)

    def test_every_alert_has_a_section_and_leads_there(self):
        groups = yaml.safe_load((ROOT / "deploy/prometheus/acuity.rules.yml").read_text())["groups"]
        alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
        sections = re.findall(r"^### (Acuity\w+)$", MANUAL, re.M)
        self.assertEqual(sorted(sections), sorted(a["alert"] for a in alerts))
        for alert in alerts:
            self.assertEqual(alert["annotations"]["runbook_url"], f"docs/operations.md#{alert['alert'].lower()}")
            self.assertIn(alert["labels"]["severity"], ("critical", "warning"))

    def test_every_file_that_the_guide_names_is_there(self):
        for name in ("docs/deploy.md", "docs/operations.md"):
            for path in re.findall(r"`((?:deploy|scripts)/[\w./-]+)`", (ROOT / name).read_text()):
                self.assertTrue((ROOT / path).exists(), f"{name}: {path}")

    def test_the_unit_waits_for_the_drain(self):
        unit = (ROOT / "deploy/systemd/acuityd.service").read_text()
        drain = float(re.search(r"`--drain-seconds` \| (\d+)", MANUAL)[1])
        self.assertGreaterEqual(float(re.search(r"^TimeoutStopSec=(\d+)", unit, re.M)[1]), drain + 5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
