from typing import Any

from routerbench.bench.results import Reference
from routerbench.bench.tables import Table, case_table, overview

LAYER = "layer token_choice ti 6272 tokens E8 fp32 group=batch"
METHOD = "Layer, router=token_choice group=batch"
ABSENT = ["loop refused: it has a norm", "mine:layer failed: RuntimeError: boom"]
REFERENCES = [
    Reference("best public layer", "a Xeon", LAYER, "", 1.21),
    Reference("to reach", "", LAYER, "", 1.08),
    Reference("to reach", "", "another case", "", 9.0),
    Reference("to reach", "", "memory token_choice ti 12544 tokens E32 fp32 group=batch", "", 1.15),
    Reference("to reach", "", "router ti 6272 tokens E8 fp32 group=batch", "expert_choice", 0.05),
]


def test_a_case_of_a_layer(results: dict[str, Any]) -> None:
    assert case_table(results["cases"][0]) == Table(
        LAYER,
        ["", "ms", "/ dense", "quartiles", "GFLOP/s", "/ GEMM", "peak MiB", "/ limit"],
        [
            ["dense", "200", "1.00", "1.00-1.00", "60.0", "60 %", "3.00", "-"],
            ["bmm", "240", "1.20", "1.15-1.35", "50.0", "50 %", "5.00", "1.25"],
            ["GEMM", "20.0", "-", "-", "100", "100 %", "1.00", "-"],
        ],
        ABSENT,
    )


def test_columns_without_numbers_are_left_out(results: dict[str, Any]) -> None:
    _, router, model, memory = map(case_table, results["cases"])
    assert router.columns == ["", "ms", "/ dense", "quartiles", "peak MiB"]
    assert model.columns == ["", "ms", "/ dense", "quartiles", "GFLOP/s", "peak MiB"]
    assert memory.columns == ["", "peak MiB", "/ limit"]
    assert memory.rows == [["dense", "7.00", "-"], ["bmm", "10.0", "1.25"]]


def test_columns_stand_in_the_order_of_the_cases(results: dict[str, Any]) -> None:
    layer, _, _, memory = results["cases"]
    *_, table = overview([memory, layer], REFERENCES)
    assert table.columns == ["", "Ti 12544 E32 fp32", "Ti 6272 E8 fp32"]
    assert table.rows[0] == ["to reach", "1.15", "-"]


def test_the_overview(results: dict[str, Any]) -> None:
    assert overview(results["cases"], REFERENCES) == [
        Table(
            f"{METHOD}: time over dense",
            ["", "Ti 6272 E8 fp32"],
            [
                ["best public layer (a Xeon)", "1.21"],
                ["to reach", "1.08"],
                ["bmm", "1.20"],
                ["dense, ms", "200"],
            ],
            ["Medians over rounds; their quartiles are 12 % away, at most 12 %.", *ABSENT],
        ),
        Table(
            f"{METHOD}: FLOP/s over those of a plain GEMM",
            ["", "Ti 6272 E8 fp32"],
            [["dense", "60 %"], ["bmm", "50 %"], ["GEMM, GFLOP/s", "100"]],
        ),
        Table(
            f"{METHOD}: peak memory over that of dense plus the gradients of the experts",
            ["", "Ti 6272 E8 fp32", "Ti 12544 E32 fp32"],
            [
                ["to reach", "-", "1.15"],
                ["bmm", "1.25", "1.25"],
                ["dense, MiB", "3.00", "7.00"],
            ],
            [f"Ti 6272 E8 fp32: {text}" for text in ABSENT],
        ),
        Table(
            "Routers alone: time over that of a dense layer",
            ["", "Ti 6272 E8 fp32 batch"],
            [["expert_choice", "0.10 (to reach 0.05)"], ["soft", "2.00"], ["dense, ms", "100"]],
            ["Medians over rounds; their quartiles are 0 % away, at most 0 %."],
        ),
        Table(
            "Training step: time over dense",
            ["", "vit token_choice B8 E8 bf16 image"],
            [["last_2", "1.10"], ["dense, ms", "2,000"]],
            ["Medians over rounds; their quartiles are 0 % away, at most 0 %."],
        ),
    ]
