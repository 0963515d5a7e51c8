"""`weft coverage` and `coverage()` in Python: reports, files, claims that fail a build, and wrong usage."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import weft
from tests.test_cli import fails
from weft.cli import main

GOLDEN = Path(__file__).with_name("golden")
STACK = """
pattern near_by(window: int = 8) { causal keep q - k < window }
stack mine(window: int = 8, depth: int = 4) over depth layers {
    layers else: near_by(window)
    coverage { reaches 50% within 4 layers at n = 32 complete within 9 layers at n = 64 }
}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "power_attention --n 32768 --path 5:30000",
        "gemma --n 32768 --kv-heads 2",
        "dilated_window --n 4096 --layers 6 --claim complete",
    ],
)
def test_golden(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["coverage", *arguments.split()])
    text = re.sub(r"analysed in .*", "analysed in some time", capsys.readouterr().out)
    golden = GOLDEN / f"coverage_{arguments.split()[0]}.txt"
    assert text == golden.read_text(encoding="utf-8"), f"if this is right, put it into {golden}:\n{text}"


def test_claims_fail_a_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.sparse"
    file.write_text(STACK)
    assert main(["coverage", str(file), "--n", "100"]) == 1
    out = capsys.readouterr().out
    assert "holds      reaches 50% within 4 layers at n = 32: " in out
    assert "fails      complete within 9 layers at n = 64: after 4 layers query 63 does not see key 0" in out
    assert main(["coverage", f"{file}(depth=9)", "--n", "100", "--claim", "density < 20%"]) == 0
    assert main(["coverage", f"{file}(depth=9)", "--n", "100", "--claim", "density < 10%"]) == 1
    capsys.readouterr()


def test_what_is_not_certain_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["coverage", "packed_documents", "--n", "256", "--layers", "2", "--claim", "reaches 30%"]
    assert main(arguments) == 1
    assert re.search(r"^undecided +reaches 30%", capsys.readouterr().out, re.MULTILINE)
    assert main([*arguments, "--docs", "2"]) == 0
    assert main([*arguments, "--docs", "8"]) == 1
    assert re.search(r"^fails +reaches 30%", capsys.readouterr().out, re.MULTILINE)


def test_a_claim_about_more_layers_than_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["coverage", "sliding_window(window=100)", "--n", "4096", "--claim"]
    assert main([*base, "complete within 42 layers"]) == 0
    assert main([*base, "complete within 41 layers"]) == 1
    capsys.readouterr()


def test_several_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "power_attention", "sliding_window(window=2304)", "--n", "32768"]) == 0
    out = capsys.readouterr().out
    assert "power_attention" in out and "sliding_window(window=2304)" in out and "after 6 layers" in out
    assert main(["coverage", "power_attention", "masformer", "--n", "4096", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [r["heads"] for r in data["reports"]] == [8, 8], "what is compared has as many heads"
    assert data["schema"] == "weft.coverage/1" and [r["name"] for r in data["reports"]] == [
        "power_attention",
        "masformer",
    ]


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, svg, png = tmp_path / "a.html", tmp_path / "a.svg", tmp_path / "a.png"
    assert main(["coverage", "gemma", "--n", "4096", "--html", str(page), "--svg", str(svg), "--png", str(png)]) == 0
    capsys.readouterr()
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>") or "<html" in page.read_text(encoding="utf-8")
    assert svg.read_text(encoding="utf-8").startswith("<svg")
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG") and zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big")


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" in fails(capsys, "coverage", "masfromer")
    assert "is not NAME=VALUE" in fails(capsys, "coverage", "sliding_window(100)")
    assert "leaves the 100 tokens" in fails(capsys, "coverage", "sliding_window", "--n", "100", "--path", "5:100")
    assert "not a multiple" in fails(capsys, "coverage", "gemma", "--heads", "6", "--kv-heads", "4")
    assert "cannot write" in fails(capsys, "coverage", "gemma", "--n", "64", "--png", str(tmp_path / "no" / "a.png"))
    for wrong, message in (
        (["gemma", "--claim", "complete whithin 3 layers"], "error[E001]"),
        (["gemma(widow=3)"], "has no parameter `widow`"),
        (["gemma", "--pattern", "gema"], "has no pattern or stack `gema`"),
        (["moa"], "parameter"),
    ):
        assert main(["coverage", *wrong]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["coverage", "gemma", "--path", "5-7"])
    assert stop.value.code == 2


def test_in_python() -> None:
    report = weft.load("power_attention").coverage(32768, path=(5, 30000), claims=("complete within 6 layers",))
    assert report.complete_at == 6 and report.verdicts[0].status == "holds"
    assert report.route is not None and report.route.depth == 1 and "complete after 6 layers" in str(report)
    assert "srcdoc=" in report._repr_html_()  # pyright: ignore[reportPrivateUsage]
    stack = weft.load_stack("masformer", window=64)
    assert stack(dense=0).coverage(256).complete_at == 5 and repr(stack) == "<weft stack masformer(window=64)>"
    with pytest.raises(weft.TensorError, match="has no input `dco`"):
        weft.load("packed_documents").coverage(64, dco=[0] * 64)
    with pytest.raises(weft.CompileError, match=r"no stack\n  = help: it has patterns: `weft\.load`"):
        weft.load_stack("power_attention")


def test_torch_is_not_imported() -> None:
    program = "import sys, weft; weft.load_stack('gemma').coverage(4096); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr
