"""After a real DeepSpeed step and a real weight sync, engine and learner give the same log-probabilities."""

import pytest
from sync_cases import connected_pair, sync_args


@pytest.mark.timeout(300)
def test_engine_agrees_with_the_learner_after_a_step():
    pytest.importorskip("ray")
    with connected_pair(sync_args(), "float32") as pair:
        assert pair.differences(pair.sample()).max() < 0.05, "they differ before anything was trained"
        for version in (1, 2):
            assert pair.step()["optim/grad_norm"] > 0
            # Guards the test itself: without a sync the two must be far apart.
            assert pair.differences(pair.sample()).max() > 0.05
            weights = pair.sync(version)
            assert weights is not None
            sample = pair.sample()
            assert pair.differences(sample).max() < 0.05
            assert weights.version == sample.weights_version == pair.ray.get(pair.engine.version.remote()) == version
