"""Relative bounds: what two settings differ by, how sure that is, and what two equal ones differ by."""

import numpy as np


def relative(a_values, b_values, bound, seed=0):
    """How much larger the B are than the A of the same pairs, as a line of a table and whether the bound holds.

    The ratio is the geometric mean over the pairs, its interval that of a bootstrap over them (95 %), the A/A spread
    the largest ratio between two A of neighbouring pairs. The bound holds if the lower end of the interval is at most
    the bound or that spread, whichever is larger; held only because of the spread, or with the upper end beyond the
    bound, it is met no better than this machine could tell, and the line says so.
    """
    logs = np.log(np.array(b_values) / np.array(a_values))
    generator = np.random.default_rng(seed)
    means = generator.choice(logs, (10_000, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975)))
    following = np.abs(np.log(np.array(a_values[1:]) / np.array(a_values[:-1])))
    spread = float(np.exp(following.max()))
    met = low <= max(bound, spread)
    text = f"{np.exp(logs.mean()):.2f} ({low:.2f} to {high:.2f}) | {spread:.2f} | at most {bound:.2f} | "
    told = "met" if high <= bound else "met, as far as the noise lets one tell" if met else "**missed**"
    return text + told, met
