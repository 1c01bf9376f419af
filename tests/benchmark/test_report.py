import io

from rich.console import Console

from recvae.benchmark.report import print_results


def row(name, mean, **more):
    metrics = {metric: {"mean": mean, "stderr": 0.01} for metric in ("recall@20", "recall@50", "ndcg@100")}
    return {"model": name, "metrics": metrics} | more


RESULTS = {
    "dataset": "ml-1m",
    "settings": {"test_users": 600, "train_users": 4834, "items": 3497, "seeds": [0, 1, 2], "split": {"kind": "strong"},
                 "metrics": ["recall@20", "recall@50", "ndcg@100"]},
    "best_baseline": "ALS",
    "models": [
        row("Worse", 0.1, settings_tried=1, choice_seconds=0.0, fit_seconds=61.234, users_ranked_per_second=12345.6,
            peak_memory_mib=512.3,
            paired_tests={"ALS": {"difference": -0.2, "p_value": 0.0001, "p_holm": 0.0002}}),
        row("Middling", 0.2, settings_tried=12, choice_seconds=7.89, fit_seconds=0.5, users_ranked_per_second=1.0,
            peak_memory_mib=1.0, parameters={},
            paired_tests={"ALS": {"difference": -0.1, "p_value": 0.02, "p_holm": 0.04}}),
        row("ALS", 0.3, settings_tried=6, parameters={"factors": 64, "values": None}),
    ],
    "published": {"EASE": {"recall@20": 0.391, "ndcg@100": 0.42}},
    "absent": {"ItemKNN": 'run pip install "recvae[benchmark]"'},
    "examples": [
        {"user": "7", "history": [f"Film {i}" for i in range(12)], "held_out": ["Up [Drama]"],
         "recommended": {"Worse": ["Up [Drama]", "Big [Comedy]"]}},
        {"user": "[/b]8", "history": ["Only one"], "held_out": ["x"], "recommended": {"Worse": []}},
    ],
}  # fmt: skip


def show(results):
    console = Console(file=io.StringIO(), width=120)
    print_results(results, console)
    return console.file.getvalue()


def test_what_a_reader_sees():
    text = show(RESULTS)
    assert text.index("ALS") < text.index("Worse")  # best first
    for part in (
        "0.3000 ±0.0100", "-0.2000 p<.001", "-0.1000 p=0.040", "12, 8 s", "61.2", "12,346", "512",
        "600 test users", "mean of 3 seed(s)",
        "ALS: the best on validation users of 6 settings, factors=64.",
        "published on this protocol: EASE, recall@20 0.3910, ndcg@100 0.4200.",
        'ItemKNN is absent: run pip install "recvae[benchmark]"',
        "User 7: Worse finds 1 of 1 held-out items (*)", "history (10 of 12)", " 1 * Up [Drama]", " 2   Big [Comedy]",
    ):  # fmt: skip
        assert part in text


def test_models_with_settings_of_the_sample_are_named():
    sized = RESULTS | {"settings": RESULTS["settings"] | {"sized_for_sample": ["RecVAE", "HVamp"]}}
    assert "RecVAE and HVamp: settings for the size of the sample instead of the defaults" in show(sized)
    assert "settings for the size" not in show(RESULTS)


def test_without_baselines_and_examples():
    text = show(RESULTS | {"best_baseline": None, "models": RESULTS["models"][2:], "examples": [], "absent": {}})
    assert "less that of" not in text
    assert "ALS" in text
