"""The objectives in PyTorch's own operations: params and batch as dicts of tensors.

`FORMS` are for eager execution; `COMPILED` has those that `torch.compile` does better with another
form of: its own loop over time steps instead of the library's recurrent layer, and sums over
segments instead of a sparse matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.objectives import HEAT_RATE, HEAT_STEPS, TF

# Training


def lecture_net(p, b):
    d = torch.sigmoid(b["x"] @ p["w1"]) @ p["w2"] - b["y"]
    return (d * d).sum()


def mlp3(p, b):
    h = F.relu(torch.addmm(p["b0"], b["x"], p["w0"]))
    h = F.relu(torch.addmm(p["b1"], h, p["w1"]))
    return F.cross_entropy(torch.addmm(p["b2"], h, p["w2"]), b["y"])


def residual_mlp(p, b, layers=50):
    h = torch.addmm(p["bin"], b["x"], p["win"])
    for i in range(layers):
        u = F.layer_norm(h, h.shape[-1:], p[f"g{i}"], p[f"s{i}"], 1e-5)
        u = F.gelu(torch.addmm(p[f"ba{i}"], u, p[f"wa{i}"]), approximate="tanh")
        h = h + torch.addmm(p[f"bb{i}"], u, p[f"wb{i}"])
    return F.cross_entropy(torch.addmm(p["bout"], h, p["wout"]), b["y"])


def transformer(p, b):
    n, t, d, heads = TF["batch"], TF["time"], TF["d"], TF["heads"]
    h = (F.embedding(b["x"], p["tok"]) + p["pos"]).reshape(n * t, d)
    for i in range(TF["layers"]):
        u = F.layer_norm(h, (d,), p[f"g1_{i}"], p[f"s1_{i}"], 1e-5)
        u = torch.addmm(p[f"bqkv{i}"], u, p[f"wqkv{i}"])
        q, k, v = u.reshape(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        a = a.transpose(1, 2).reshape(n * t, d)
        h = h + torch.addmm(p[f"bo{i}"], a, p[f"wo{i}"])
        u = F.layer_norm(h, (d,), p[f"g2_{i}"], p[f"s2_{i}"], 1e-5)
        u = F.gelu(torch.addmm(p[f"b1_{i}"], u, p[f"w1_{i}"]), approximate="tanh")
        h = h + torch.addmm(p[f"b2_{i}"], u, p[f"w2_{i}"])
    z = F.layer_norm(h, (d,), p["gf"], p["sf"], 1e-5) @ p["head"]
    return F.cross_entropy(z, b["y"].reshape(n * t))


def conv_net(p, b):
    h = F.max_pool2d(F.relu(F.conv2d(b["x"], p["c1"], p["d1"], padding=1)), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, p["c2"], p["d2"], padding=1)), 2)
    flat = h.permute(0, 2, 3, 1).reshape(len(h), -1)
    return F.cross_entropy(torch.addmm(p["b"], flat, p["w"]), b["y"])


def w8(p, b):
    xz, lx = p["x"] * p["z"], torch.log(p["x"])
    return torch.sum(torch.exp(xz) + xz / lx + torch.sin(lx) / xz)


def deep_chain(p, b, layers=200):
    h = b["x"]
    for i in range(layers):
        h = h + 0.1 * torch.tanh(torch.addmm(p[f"b{i}"], h, p[f"w{i}"]))
    return torch.mean(h * h)


def lstm(p, b):
    """The library's layer, which adds two biases."""
    zeros = torch.zeros_like(b["y"])[None]
    weights = [p["wx"], p["wh"], p["b"], torch.zeros_like(p["b"])]
    _, h, _ = torch._VF.lstm(b["x"], (zeros, zeros), weights, True, 1, 0.0, True, False, False)
    d = h[0] - b["y"]
    return (d * d).mean()


def lstm_loop(p, b):
    """A loop over time steps, the inputs' part of the gates computed before it."""
    steps, rows, _ = b["x"].shape
    z = torch.addmm(p["b"], b["x"].flatten(0, 1), p["wx"].T)
    back = p["wh"].T
    h = c = torch.zeros_like(b["y"])
    for each in z.reshape(steps, rows, -1).unbind(0):
        i, f, g, o = torch.addmm(each, h, back).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    d = h - b["y"]
    return (d * d).mean()


# Layers alone


def cross_entropy_alone(p, b):
    return F.cross_entropy(p["z"], b["y"])


def layer_norm_alone(p, b):
    return F.layer_norm(p["x"], p["gain"].shape, p["gain"], p["shift"], 1e-5)


def attention_alone(p, b):
    return F.scaled_dot_product_attention(p["q"], p["k"], p["v"], is_causal=True)


# What other users compute


def heat(p, b):
    u = p["u"].clone()
    for _ in range(HEAT_STEPS):
        around = u[:-2, 1:-1] + u[2:, 1:-1]
        around += u[1:-1, :-2]
        around += u[1:-1, 2:]
        around *= HEAT_RATE
        around += u[1:-1, 1:-1] * (1.0 - 4.0 * HEAT_RATE)
        u[1:-1, 1:-1] = around
    return u


def heat_misfit(p, b):
    d = heat(p, b) - b["y"]
    return (d * d).sum()


def products(p, b):
    return torch.bmm(p["x"], p["y"])


def solutions(p, b):
    return torch.linalg.solve(p["a"], p["y"])


def mixture(p, b):
    factor = torch.tril(p["low"], -1) + torch.diag_embed(torch.exp(p["scale"]))
    d = b["x"] - p["mean"][:, None, :]
    z = torch.bmm(d, factor.mT)
    q = (p["logit"] + p["scale"].sum(1))[:, None] - 0.5 * (z * z).sum(2)
    return torch.logsumexp(p["logit"], 0) - torch.logsumexp(q, 0).mean()


def running_sum(p, b):
    return torch.cumsum(p["x"], dim=1)


def recurrence(p, b):
    h, states = torch.zeros_like(p["x"][0]), []
    for a, x in zip(p["a"].unbind(0), p["x"].unbind(0), strict=True):
        h = torch.addcmul(x, a, h)
        states.append(h)
    return torch.stack(states)


def graph_net(p, b):
    """Messages as products with the sparse matrix of the edges."""
    h = torch.tanh(torch.addmm(p["b0"], b["edges"] @ b["x"], p["w0"]))
    return F.cross_entropy(torch.addmm(p["b1"], b["edges"] @ h, p["w1"]), b["y"])


def graph_net_of_segments(p, b):
    def messages(h):
        rows = h[b["source"]] * b["weight"][:, None]
        return torch.zeros_like(h).index_add(0, b["target"], rows)

    h = torch.tanh(torch.addmm(p["b0"], messages(b["x"]), p["w0"]))
    return F.cross_entropy(torch.addmm(p["b1"], messages(h), p["w1"]), b["y"])


def edges(b):
    """Return the sparse matrix that sums weighted rows along the edges of a graph."""
    ends = torch.stack([b["target"], b["source"]])
    n = len(b["x"])
    return torch.sparse_coo_tensor(ends, b["weight"], (n, n)).coalesce().to_sparse_csr()


def sorted_rows(p, b):
    return torch.sort(p["x"], dim=1).values


def add_transposed(p, b):
    return p["x"] + p["y"].T


def elementwise(p, b):
    x, y = p["x"], p["y"]
    u = torch.tanh(x * y + 0.5)
    v = torch.sqrt(x * x + y * y + 1.0)
    w = torch.exp(-u * v) + torch.relu(x - y)
    r = torch.log(w + 1.0) / v
    return torch.sin(r) * u + torch.abs(y - r) * 0.25


def no_objective(p, b):
    raise NotImplementedError("the batch holds the gradients")


FORMS = {
    f.__name__: f
    for f in (
        lecture_net,
        mlp3,
        residual_mlp,
        transformer,
        conv_net,
        w8,
        deep_chain,
        lstm,
        cross_entropy_alone,
        layer_norm_alone,
        attention_alone,
        heat,
        heat_misfit,
        products,
        solutions,
        mixture,
        running_sum,
        recurrence,
        graph_net,
        sorted_rows,
        add_transposed,
        elementwise,
        no_objective,
    )
}
COMPILED = FORMS | {"lstm": lstm_loop, "graph_net": graph_net_of_segments}
