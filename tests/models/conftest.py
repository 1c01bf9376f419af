"""Models that many test files only read, fitted once."""

import pytest


class FittedModels(dict):
    """By name in `CONTRACT`, a model fitted on `rows` when it is first asked for. Tests change copies only."""

    def __init__(self, rows):
        self.rows = rows

    def __missing__(self, name):
        from tests.models.test_contract import CONTRACT

        self[name] = CONTRACT[name]().fit(self.rows)
        return self[name]


@pytest.fixture(scope="session")
def fitted_models(checkerboard):
    return FittedModels(checkerboard)
