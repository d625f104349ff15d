"""Writes deploy/kubernetes/components/monitoring/prometheus-rule.yaml: acuity.rules.yml as the Prometheus operator takes it.

    python3 deploy/prometheus/prometheus_rule.py            # write
    python3 deploy/prometheus/prometheus_rule.py --check    # fail if what is there is not what this writes
"""
import pathlib
import sys

DEPLOY = pathlib.Path(__file__).resolve().parents[1]
HEAD = """\
# Written by deploy/prometheus/prometheus_rule.py from acuity.rules.yml: change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: acuity
spec:
"""


def main():
    rules = (DEPLOY / "prometheus/acuity.rules.yml").read_text()
    body = rules[rules.index("groups:"):].splitlines()
    text = HEAD + "".join(f"  {line}".rstrip() + "\n" for line in body)
    path = DEPLOY / "kubernetes/components/monitoring/prometheus-rule.yaml"
    if sys.argv[1:] != ["--check"]:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        raise SystemExit(f"{path.name} is not what prometheus_rule.py writes: run it")


if __name__ == "__main__":
    main()
