"""Stage `report`: everything measured -> reports/, one page, the same text, and its pictures."""

from __future__ import annotations

from rlpipe.stages.base import Stage
from rlpipe.stages.reporting import page, plots
from rlpipe.stages.reporting.findings import find


def run(stage: Stage) -> None:
    """Write reports/: index.html, which loads nothing else, report.md, accuracy.png and reward_vs_kl.png.

    And reward_hacking.png, where a policy is trained on another reward than the held-out one.
    """
    findings = find(stage)
    reports = stage.path("reports")
    reports.mkdir(parents=True, exist_ok=True)
    pictures = {"accuracy": plots.accuracy(findings), "reward_vs_kl": plots.reward_vs_kl(findings)}
    if findings.watch.rises:
        pictures["reward_hacking"] = plots.hacking(findings.watch)
    for name, figure in pictures.items():
        plots.write_png(figure, reports / f"{name}.png")
    svgs = {name: plots.inline_svg(figure, name) for name, figure in pictures.items()}
    (reports / "index.html").write_text(page.html(findings, svgs), encoding="utf-8")
    (reports / "report.md").write_text(page.markdown(findings), encoding="utf-8")
