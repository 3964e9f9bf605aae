"""On real published nets: the same accuracy under attack as the field's reference implementation."""

import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from tests import published_nets

pytestmark = [published_nets.needs_nets, pytest.mark.shared_data, pytest.mark.slow]

RADII = {"mnist": {"Linf": 0.1, "L2": 1.5, "L1": 10.0}, "cifar10": {"Linf": 4 / 255, "L2": 0.5, "L1": 8.0}}


@pytest.mark.parametrize("name", published_nets.NETS)
def test_nets_agree_with_torch(name):
    torch = pytest.importorskip("torch")
    x, y = published_nets.images(name, 50)
    ours = ops.convert_to_numpy(published_nets.keras_net(name)(ops.convert_to_tensor(x)))
    theirs = published_nets.torch_net(name)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert (ours.argmax(1) == y).mean() > 0.5


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("name", published_nets.NETS)
def test_agrees_with_the_reference_implementation(name, norm, monkeypatch):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pyautoattack.autopgd_base", exc_type=ImportError)
    count, eps = 24, RADII[name.split("-")[0]][norm]
    x, y = published_nets.images(name, count)
    net = published_nets.torch_net(name)
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y).long()
    theirs = reference.APGDAttack(net, n_iter=20, norm=norm, eps=eps, loss="ce", n_restarts=1, device="cpu")
    theirs.init_hyperparam(images)
    # Random starts become the image itself; only here, as Keras draws weights by the same functions on PyTorch.
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
        patch.setattr(torch, "rand", lambda *shape, **_: torch.full(tuple(np.atleast_1d(shape[0])), 0.5))
        _, correct, loss, _ = theirs.attack_single_run(images, labels)

    model = published_nets.keras_net(name)
    threat = kr.ThreatModel(norm, eps)
    x_adv = kr.attacks.APGD(threat, n_iter=20, returns="misclassified")(model, x, y)
    ours = ops.convert_to_numpy(kr.losses.correct(model(ops.convert_to_tensor(x_adv)), ops.convert_to_tensor(y)))
    assert (ours != correct.numpy()).sum() <= 1
    if norm != "L1":  # there the first sparsity differs between training and evaluation
        x_adv = kr.attacks.APGD(threat, n_iter=20)(model, x, y)
        values = kr.losses.cross_entropy(model(ops.convert_to_tensor(x_adv)), ops.convert_to_tensor(y))
        # Where the last bit of a float decides a sign or a checkpoint, single images go their own way.
        agree = np.isclose(ops.convert_to_numpy(values), loss.detach().numpy(), rtol=1e-3, atol=1e-5)
        assert agree.mean() >= 0.9


@pytest.mark.once
@pytest.mark.parametrize("name", published_nets.NETS)
def test_shrinking_schedule_agrees_with_the_reference_implementation(name):
    """From random starts, which differ: successes within 2.6 standard errors of the difference of two such rates."""
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pyautoattack.autopgd_base", exc_type=ImportError)
    count, eps = 100, {"mnist-madrycnn-tiny": 8.0, "cifar10-resnet2b": 2.0, "cifar10-oval-base": 2.0}[name]
    x, y = published_nets.images(name, count)
    net, model = published_nets.torch_net(name), published_nets.keras_net(name)
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y).long()
    left = {"ours": [], "theirs": []}
    for seed in range(2):
        theirs = reference.APGDAttack(
            net, n_iter=40, norm="L1", eps=eps, loss="ce", n_restarts=1, device="cpu", use_largereps=True, seed=seed
        )
        left["theirs"].append((net(theirs.perturb(images, labels)).argmax(1) == labels).float().mean().item())
        attack = kr.attacks.APGD(
            kr.ThreatModel("L1", eps), 40, "shrinking", random_start=True, returns="misclassified", seed=seed
        )
        logits = ops.convert_to_numpy(model(ops.convert_to_tensor(attack(model, x, y))))
        left["ours"].append((logits.argmax(1) == y).mean())
    ours, theirs = (float(np.mean(left[key])) for key in ("ours", "theirs"))
    # The same images: of a binomial spread at most half is due to the starts.
    assert abs(ours - theirs) <= 2.6 * 0.5 * np.sqrt(2 * max(theirs * (1 - theirs), 0.02) / count), left


def _distances(norm, x_adv, x):
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    return np.linalg.norm((x_adv.astype("float64") - x).reshape(len(x), -1), order, axis=1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("targeted", [False, True])
def test_fab_finds_points_as_near_as_the_reference(norm, targeted):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pyautoattack.fab_pt", exc_type=ImportError)
    name, count = "cifar10-resnet2b", 24
    x, y = published_nets.images(name, count)
    model, net = published_nets.keras_net(name), published_nets.torch_net(name)
    right = ops.convert_to_numpy(model(ops.convert_to_tensor(x))).argmax(1) == y
    x, y = x[right], y[right]
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y).long()
    theirs = reference.FABAttack_PT(net, norm=norm, eps=1000.0, n_iter=20, device="cpu")
    theirs.target_class = 2
    points = theirs.attack_single_run(images, labels, is_targeted=targeted).numpy().transpose(0, 2, 3, 1)
    attack = kr.attacks.FAB(kr.ThreatModel(norm, 1000.0), n_iter=20, targeted=targeted, n_target_classes=1)
    ours, theirs = _distances(norm, attack(model, x, y), x), _distances(norm, points, x)
    # The search is the same, to the images for which it finds nothing; rounding may send single ones another way.
    found = (ours > 0) & (theirs > 0)
    assert ((ours > 0) != (theirs > 0)).sum() <= 1
    assert found.sum() > 10
    assert np.median(ours[found] / theirs[found]) == pytest.approx(1.0, abs=1e-3)
    assert (np.abs(ours[found] / theirs[found] - 1) < 0.02).mean() >= 0.75


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_square_breaks_as_many_as_the_reference(norm):
    """Both are random: the difference in successes must be within 2.6 standard errors of a binomial one."""
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pyautoattack.square", exc_type=ImportError)
    name, count, eps = "cifar10-resnet2b", 60, {"Linf": 8 / 255, "L2": 0.8, "L1": 10.0}[norm]
    x, y = published_nets.images(name, count)
    model, net = published_nets.keras_net(name), published_nets.torch_net(name)
    right = ops.convert_to_numpy(model(ops.convert_to_tensor(x))).argmax(1) == y
    x, y = x[right], y[right]
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y).long()
    broken = {"ours": [], "theirs": []}
    for seed in range(2):
        attack = kr.attacks.Square(kr.ThreatModel(norm, eps), n_queries=200, seed=seed)
        logits = ops.convert_to_numpy(model(ops.convert_to_tensor(attack(model, x, y))))
        broken["ours"].append((logits.argmax(1) != y).mean())
        theirs = reference.SquareAttack(
            net, norm=norm, eps=eps, n_queries=200, p_init=0.8, seed=seed, device="cpu", resc_schedule=False
        )
        with torch.no_grad():
            broken["theirs"].append((net(theirs.perturb(images, labels)).argmax(1) != labels).float().mean().item())
    ours, theirs = (float(np.mean(broken[key])) for key in ("ours", "theirs"))
    # The same images under two seeds: of the binomial spread at most what images in the balance contribute.
    spread = np.sqrt(max(theirs * (1 - theirs), 0.05) * 2 / (2 * len(x)))
    assert abs(ours - theirs) <= 2.6 * spread, broken
    assert 0.05 < ours < 0.95
