"""Writes the two Grafana dashboards: service.json and attention.json, beside this file.

    python3 deploy/grafana/dashboards.py            # write
    python3 deploy/grafana/dashboards.py --check    # fail if what is there is not what this writes

A dashboard is a list of rows, a row a title and panels; everything else about Grafana's JSON is in the functions below.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
MODEL = 'model=~"$model"'
WIDTH, HEIGHT = 24, 8  # of Grafana's grid; a panel is HEIGHT high


def quantile(q, metric, by="model"):
    return f'histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket{{{MODEL}}}[$__rate_interval])))'


def rate(metric, by="model", labels=""):
    return f'sum by ({by}) (rate({metric}{{{MODEL}{labels}}}[$__rate_interval]))'


def mean(metric, by):
    return f'{rate(metric + "_sum", by)} / ({rate(metric + "_count", by)} > 0)'


def quantiles(metric):
    return [(quantile(q, metric), f"{{{{model}}}} p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]


def panel(title, unit, targets, help_, kind="timeseries", maximum=None):
    """targets: (expression, legend) pairs."""
    defaults = {"unit": unit, "min": 0}
    if maximum is not None:
        defaults["max"] = maximum
    made = {"type": kind, "title": title, "description": help_, "datasource": SOURCE,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [{"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
                        for i, (expression, legend) in enumerate(targets)]}
    if kind in ("bargauge", "table"):
        for target in made["targets"]:
            target["instant"] = True
            target["format"] = "table" if kind == "table" else "time_series"
    if kind == "heatmap":
        made["targets"][0]["format"] = "heatmap"
        made["options"] = {"calculate": False, "color": {"scheme": "Blues"}, "yAxis": {"unit": unit}}
    return made


def dashboard(uid, title, help_, rows):
    panels, y = [], 0
    for name, row in rows:
        panels.append({"type": "row", "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y += 1
        for i, made in enumerate(row):
            width = WIDTH // len(row)
            panels.append({**made, "gridPos": {"x": i * width, "y": y, "w": width, "h": HEIGHT}})
        y += HEIGHT
    for i, made in enumerate(panels, 1):
        made["id"] = i
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {"name": "model", "label": "Model", "type": "query", "datasource": SOURCE, "refresh": 2, "multi": True,
         "includeAll": True, "allValue": ".*", "query": "label_values(acuity_model_info, model)"}]
    return {"uid": uid, "title": title, "description": help_, "tags": ["acuity"], "schemaVersion": 39, "version": 1,
            "editable": True, "timezone": "browser", "refresh": "15s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": variables}, "panels": panels}


def service():
    failures = "model:acuity_request_failures:ratio_rate"
    return dashboard("acuity-service", "Acuity: service", "Requests, latency, KV cache and engine of acuityd.", [
        ("Requests", [
            panel("Requests that ended", "reqps", [(rate("acuity_requests_total", "model, finish_reason"),
                                                    "{{model}} {{finish_reason}}")], "By why they ended."),
            panel("Refused", "reqps", [(rate("acuity_requests_rejected_total", "model, reason"), "{{model}} {{reason}}")],
                  "queue_full: more arrives than is served. invalid: the client's mistake. draining: a pod that ends."),
            panel("Failures", "percentunit", [(f"{failures}{w}{{{MODEL}}}", f"{{{{model}}}} {w}") for w in ("5m", "1h", "6h")],
                  "Errors, deadlines and full queues as a share; the objective allows 0.5 %."),
            panel("Corrupted", "short", [(f"sum by (model) (increase(acuity_requests_corrupted_total{{{MODEL}}}[1h]))",
                                          "{{model}}")], "Requests whose logits were not finite, in an hour: none is normal.")]),
        ("Latency", [
            panel("Time to first token", "s", quantiles("acuity_time_to_first_token_seconds"), "From arrival, tokenisation included."),
            panel("Between tokens", "s", quantiles("acuity_inter_token_latency_seconds"), "What a reader sees while text flows."),
            panel("In the queue", "s", quantiles("acuity_queue_duration_seconds"), "From arrival to the first step."),
            panel("Whole request", "s", quantiles("acuity_request_duration_seconds"), "From arrival to the end.")]),
        ("Phases and lengths", [
            panel("Prefill", "s", quantiles("acuity_prefill_duration_seconds"), "From the first step to the first token."),
            panel("Decode", "s", quantiles("acuity_decode_duration_seconds"), "From the first token to the end."),
            panel("Prompt length", "short", quantiles("acuity_prompt_length_tokens"), "Tokens."),
            panel("Output length", "short", quantiles("acuity_generation_length_tokens"), "Tokens.")]),
        ("Engine", [
            panel("Tokens", "short", [(rate("acuity_prompt_tokens_total"), "{{model}} prompt"),
                                      (rate("acuity_generation_tokens_total"), "{{model}} generated")],
                  "Per second, counted when a request ends."),
            panel("Waiting and running", "short", [(f"sum by (model) (acuity_requests_waiting{{{MODEL}}})", "{{model}} waiting"),
                                                   (f"sum by (model) (acuity_requests_running{{{MODEL}}})", "{{model}} running")],
                  "Sequences in the queue and in the batch."),
            panel("Step", "s", quantiles("acuity_step_duration_seconds"), "Duration of an engine step."),
            panel("Batch", "short", [(mean("acuity_batch_size_sequences", "model"), "{{model}}")], "Sequences in a step, on average.")]),
        ("KV cache", [
            panel("Held", "percentunit", [(f"acuity_kv_cache_utilization{{{MODEL}}}", "{{instance}} {{model}}")],
                  "Share of blocks that live sequences hold. Above 90 % sequences wait for blocks.", maximum=1),
            panel("Blocks held", "short", [(f"acuity_kv_cache_blocks_held{{{MODEL}}}", "{{instance}} {{model}}")], "The same as a count."),
            panel("Prefix reuse", "percentunit", [(f"model:acuity_prefix_cache_hits:ratio_rate5m{{{MODEL}}}", "{{model}}")],
                  "Prompt tokens that were found computed.", maximum=1),
            panel("Preemptions", "ops", [(rate("acuity_preemptions_total"), "{{model}}")], "Sequences that gave up their blocks.")]),
        ("What is served", [
            panel("Models", "none", [(f"acuity_model_info{{{MODEL}}}", "")], "One line per daemon and model.", kind="table"),
            panel("Load time", "s", [(f"acuity_model_load_seconds{{{MODEL}}}", "{{instance}} {{model}}")], "From start to loaded.", kind="bargauge"),
            panel("KV cache", "none", [(f"acuity_kv_cache_info{{{MODEL}}}", "")], "Blocks and their size.", kind="table")]),
    ])


def attention():
    """How flat each band of layers attends, by the number of keys a row sees. Only prompts that were measured count."""
    recorded = "model_layers_context:acuity_attention_normalized_entropy"
    lines = "{{model}} {{layers}} {{context}}"
    bands = [("front", "first third"), ("middle", "second third"), ("back", "last third")]

    def by_context(metric, band):
        selector = f'{MODEL}, layers="{band}"'
        by = "model, context"
        total = f"sum by ({by}) (rate({metric}_sum{{{selector}}}[$__rate_interval]))"
        count = f"sum by ({by}) (rate({metric}_count{{{selector}}}[$__rate_interval]))"
        return [(f"{total} / ({count} > 0)", "{{model}} from {{context}} keys")]

    def row(title, metric, unit, help_, maximum=1):
        return (title, [panel(f"{title}, {name} of the layers", unit, by_context(metric, band), help_, maximum=maximum)
                        for band, name in bands])

    return dashboard("acuity-attention", "Acuity: attention", "Whether attention stays sharp as the context grows.", [
        ("Is it flattening?", [
            panel("Against this model's week", "short", [(f"{recorded}:ratio_1h_7d{{{MODEL}}}", lines)],
                  "Normalised entropy of the last hour over that of seven days. Above 1.1: flatter than usual."),
            panel("Against its own short contexts", "short", [(f"{recorded}:ratio_to_short{{{MODEL}}}", lines)],
                  "Over that at 256 keys. Above 1.25: what stands far back is hardly read."),
            panel("Last measured prompt", "percentunit", [(f"acuity_attention_last_normalized_entropy{{{MODEL}}}", lines)],
                  "H / ln n: 100 % is flat, 0 is one key.", kind="bargauge", maximum=1)]),
        row("Normalised entropy", "acuity_attention_normalized_entropy", "percentunit", "H / ln n: 100 % is flat attention."),
        row("Largest probability", "acuity_attention_max_probability", "percentunit", "Of a row, on average: near 0 is flat."),
        row("Effective context", "acuity_attention_effective_context_fraction", "percentunit",
            "e^H / n: the share of the context that is attended to.", maximum=None),
        ("Distributions over prompts", [
            panel("Normalised entropy", "percentunit", [(f'sum by (le) (increase(acuity_attention_normalized_entropy_bucket{{{MODEL}}}[$__rate_interval]))', "{{le}}")],
                  "Prompts by the entropy of a band and a context length.", kind="heatmap"),
            panel("Largest probability", "percentunit", [(f'sum by (le) (increase(acuity_attention_max_probability_bucket{{{MODEL}}}[$__rate_interval]))', "{{le}}")],
                  "The same for the largest probability.", kind="heatmap")]),
        ("The last measured prompt", [
            panel("Its largest probability", "percentunit", [(f"acuity_attention_last_max_probability{{{MODEL}}}", lines)],
                  "By band and context length.", kind="bargauge", maximum=1),
            panel("Its effective context", "percentunit", [(f"acuity_attention_last_effective_context_fraction{{{MODEL}}}", lines)],
                  "By band and context length.", kind="bargauge"),
            panel("Measured prompts", "short", [(f"sum by (model, context) (increase(acuity_attention_normalized_entropy_count{{{MODEL}, layers=\"front\"}}[1h]))",
                                                 "{{model}} from {{context}} keys")], "In the last hour: how much the rest rests on.")]),
    ])


def main():
    for name, made in (("service", service()), ("attention", attention())):
        path, text = HERE / f"{name}.json", json.dumps(made, indent=1) + "\n"
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text() != text:
                raise SystemExit(f"{path.name} is not what dashboards.py writes: run it")
        else:
            path.write_text(text)


if __name__ == "__main__":
    main()
