"""The configuration that `up` writes for a Prometheus: this stack's ports, our rules."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from contracts.settings import StackSettings
from stack import prometheus
from stack.layout import Layout, Options
from stack.programs import Platform


def test_every_process_of_ours_and_kafka_is_asked_at_its_own_port(tmp_path: Path) -> None:
    platform = Platform(Layout(tmp_path), Options(port_offset=100), StackSettings())
    prometheus.write(tmp_path, platform.all())
    targets = json.loads((tmp_path / "targets.json").read_text())
    asked = {target["labels"]["process"]: target["targets"] for target in targets}
    assert asked["kafka"] == ["127.0.0.1:9504"]
    assert asked["api"] == ["127.0.0.1:8182"]
    ours = {"capture", "worker-city", "worker-salesman", "worker-enriched", "sink", "publisher", "observer"}
    assert asked.keys() == ours | {"kafka", "api"}
    assert len({place for places in asked.values() for place in places}) == len(asked)
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [str(tmp_path / "targets.json")]
    assert list(Path("/").glob(config["rule_files"][0][1:]))
