"""APGD image by image in numpy and float64, from Croce & Hein 2020 and 2021: slow, plain, independent."""

import numpy as np


class Net:
    """Two dense layers with tanh between, and the gradient of its loss by hand."""

    def __init__(self, shape, classes, seed=0):
        rng = np.random.default_rng(seed)
        n = int(np.prod(shape))
        self.first = rng.normal(size=(n, 12)) * 2 / np.sqrt(n)
        self.second = rng.normal(size=(12, classes))

    def logits(self, x):
        return np.tanh((x.reshape(-1) - 0.5) @ self.first) @ self.second

    def gradient(self, x, of_logits):
        hidden = np.tanh((x.reshape(-1) - 0.5) @ self.first)
        return ((self.second @ of_logits * (1 - hidden**2)) @ self.first.T).reshape(x.shape)


def cross_entropy(z, y):
    p = np.exp(z - z.max())
    p /= p.sum()
    q = np.eye(len(z))[y] if np.ndim(y) == 0 else y
    return -(q * np.log(p)).sum(), p * q.sum() - q


def dlr(z, y):
    y = int(y) if np.ndim(y) == 0 else int(np.argmax(y))
    order = np.argsort(z)[::-1]
    other = order[0] if order[0] != y else order[1]
    numerator, denominator = z[other] - z[y], z[order[0]] - z[order[2]] + 1e-12
    gradient = np.zeros(len(z))
    gradient[other] += 1 / denominator
    gradient[y] -= 1 / denominator
    gradient[order[0]] -= numerator / denominator**2
    gradient[order[2]] += numerator / denominator**2
    return numerator / denominator, gradient


def project_l1(u, x, eps):
    """Onto ball and box, by bisection on the threshold."""
    distance, room = np.abs(u - x), np.where(u > x, 1 - x, x)
    if np.minimum(distance, room).sum() <= eps:
        return u.clip(0, 1)
    low, high = 0.0, distance.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if np.clip(distance - middle, 0, room).sum() <= eps else (middle, high)
    change = np.clip(distance - high, 0, room)
    # What bisection leaves is not a changed pixel: the attack counts those.
    return x + np.sign(u - x) * np.where(change > 1e-9, change, 0)


def shrinking_apgd(net, x, y, eps, n_iter, loss=cross_entropy, start=None):
    """L1: 30 % of the steps at radius 3 eps, 30 % at 2 eps, the rest at eps; returns as `apgd`."""
    lengths = [int(np.ceil(0.3 * n_iter))] * 2
    lengths.append(n_iter - sum(lengths))
    point = x.astype("float64") if start is None else start.astype("float64")
    for factor, length in zip((3, 2, 1), lengths):
        start = project_l1(point, x.astype("float64"), factor * eps)
        point, value, misclassified = apgd(net, x, y, "L1", factor * eps, length, loss, start=start)
    return point, value, misclassified


def apgd(net, x, y, norm, eps, n_iter, loss=cross_entropy, share=0.05, start=None):
    """Returns (point of highest loss, its loss, last misclassified point or None)."""
    x = x.astype("float64")
    y_class = int(y) if np.ndim(y) == 0 else int(np.argmax(y))

    def evaluate(point):
        z = net.logits(point)
        value, of_logits = loss(z, y)
        return value, net.gradient(point, of_logits), int(np.argmax(z)) != y_class

    def retract(point):
        if norm == "Linf":
            return np.clip(np.clip(point, x - eps, x + eps), 0, 1)
        length = np.sqrt(((point - x) ** 2).sum())
        return np.clip(x + (point - x) / (length + 1e-12) * min(eps, length), 0, 1)

    now = before = x.copy() if start is None else start
    value, gradient, wrong = evaluate(now)
    best, best_value, best_gradient = now, value, gradient
    misclassified = now if wrong else None
    history = [0.0]
    step = eps if norm == "L1" else 2 * eps
    support_before, best_at_check, halved_at_check = x.size, value, True
    if start is not None:  # an L1 search that goes on: as sparse as it is
        support_before = np.count_nonzero(now - x)
        share = np.float32(support_before) / np.float32(x.size) / np.float32(1.5)
    interval = max(int((0.04 if norm == "L1" else 0.22) * n_iter), 1)
    since = 0
    for i in range(n_iter):
        if norm == "L1":
            magnitude = np.abs(gradient).ravel()
            # In float32: at whole numbers the floor turns on the precision of the share.
            position = min(int((np.float32(1) - np.float32(share)) * np.float32(x.size)), x.size - 1)
            sparse = np.sign(gradient) * (np.abs(gradient) >= np.sort(magnitude)[position])
            following = project_l1(now + step * sparse / (np.abs(sparse).sum() + 1e-10), x, eps)
        else:
            direction = np.sign(gradient) if norm == "Linf" else gradient / (np.sqrt((gradient**2).sum()) + 1e-12)
            z = retract(now + step * direction)
            a = 0.75 if i else 1.0
            following = retract(now + a * (z - now) + (1 - a) * (now - before))
        before, now = now, following
        value, gradient, wrong = evaluate(now)
        if wrong:
            misclassified = now
        history.append(value)
        if value > best_value:
            best, best_value, best_gradient = now, value, gradient
        since += 1
        if since < interval:
            continue
        if norm == "L1":
            support = np.count_nonzero(best - x)
            share = np.float32(support) / np.float32(x.size) / np.float32(1.5)
            restart = support < 0.95 * support_before
            step = min(max(eps if restart else step / 1.5, eps / 10), eps)
            support_before = support
        else:
            raised = sum(history[-k] > history[-k - 1] for k in range(1, interval + 1))
            restart = raised <= 0.75 * interval or (not halved_at_check and best_at_check >= best_value)
            step = step / 2 if restart else step
            best_at_check, halved_at_check = best_value, restart
            interval = max(interval - max(int(0.03 * n_iter), 1), max(int(0.06 * n_iter), 1))
        if restart:
            now, gradient = best, best_gradient
        since = 0
    return best, best_value, misclassified
