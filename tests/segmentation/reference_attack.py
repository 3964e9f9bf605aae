"""Dense losses, attacks on them and SEA's figures, image by image in numpy and float64: slow, plain, independent."""

import numpy as np


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def cross_entropy(z, y, weights=None, only_correct=False):
    """Mean over the labelled pixels of logits (height, width, classes), and its gradient."""
    value, gradient, count = 0.0, np.zeros_like(z), (y >= 0).sum()
    for i, j in np.argwhere(y >= 0):
        label, p = y[i, j], softmax(z[i, j])
        if only_correct and p.argmax() != label:
            continue
        weight = 1.0 if weights is None else weights[label]
        value -= weight * np.log(p[label]) / count
        gradient[i, j] = weight * (p - np.eye(len(p))[label]) / count
    return value, gradient


def jensen_shannon(z, y):
    value, gradient, count = 0.0, np.zeros_like(z), (y >= 0).sum()
    for i, j in np.argwhere(y >= 0):
        p, q = softmax(z[i, j]), np.eye(z.shape[-1])[y[i, j]]
        m = (p + q) / 2
        value += (np.sum(p * np.log(p / m)) + np.log(1 / m[y[i, j]])) / 2 / count
        of_p = np.log(p / m) / 2  # what else depends on p cancels
        gradient[i, j] = p * (of_p - (p * of_p).sum()) / count
    return value, gradient


def clip(point, x, eps):
    return np.clip(np.clip(point, x - eps, x + eps), 0, 1)


def right(z, y):
    return (z.argmax(-1) == y)[y >= 0].mean()


def pgd(net, x, y, eps, n_iter, step, loss):
    point = x
    for _ in range(n_iter):
        gradient = net.gradient(point, loss(net.logits(point).reshape(*y.shape, -1), y)[1].reshape(-1))
        point = clip(point + step * np.sign(gradient), x, eps)
    return point


def shrinking_apgd(net, x, y, eps, n_iter, loss, tracked=cross_entropy):
    """Stages at radius 2, 1.5 and 1 eps; returns the point of the last with the fewest right pixels, and its share."""
    start = x
    for factor, length in ((2, 3 * n_iter // 10), (1.5, 3 * n_iter // 10), (1, n_iter - 2 * (3 * n_iter // 10))):
        start, answer, share = _stage(net, x, y, factor * eps, length, loss, tracked, clip(start, x, factor * eps))
    return answer, share


def _stage(net, x, y, eps, n_iter, loss, tracked, now):
    def evaluate(point):
        z = net.logits(point).reshape(*y.shape, -1)
        return tracked(z, y)[0], net.gradient(point, loss(z, y)[1].reshape(-1)), right(z, y)

    value, gradient, share = evaluate(now)
    best, best_value, best_gradient = now, value, gradient
    answer, fewest, answer_value = now, share, value
    before, values, step, since = now, [0.0], 2 * eps, 0
    interval, halved, best_at_check = max(int(0.22 * n_iter), 1), True, value
    for i in range(n_iter):
        z = clip(now + step * np.sign(gradient), x, eps)
        a = 0.75 if i else 1.0
        before, now = now, clip(now + a * (z - now) + (1 - a) * (now - before), x, eps)
        value, gradient, share = evaluate(now)
        values.append(value)
        if share < fewest or (share == fewest and (share == 0 or value > answer_value)):
            answer, fewest, answer_value = now, share, value
        if value > best_value:
            best, best_value, best_gradient = now, value, gradient
        since += 1
        if since == interval:
            raised = sum(values[-k] > values[-k - 1] for k in range(1, interval + 1))
            halved = raised <= 0.75 * interval or (not halved and best_at_check >= best_value)
            if halved:
                step, now, gradient = step / 2, best, best_gradient
            best_at_check, since = best_value, 0
            interval = max(interval - max(int(0.03 * n_iter), 1), max(int(0.06 * n_iter), 1))
    return best, answer, fewest
