"""An example of a Python test to run on a mesh: is a flaky test really flaky?

The Wilson interval bounds the true failure rate of a test from its failures so far.
Runs under pytest and under plain unittest, and needs nothing but Python.
"""

import math
import random
import unittest


def wilson(failures, runs, z=1.96):
    """The interval that holds the true failure rate with 95 % confidence."""
    if runs == 0:
        return 0.0, 1.0
    p = failures / runs
    middle = (p + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z / (1 + z * z / runs) * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
    return max(0.0, middle - half), min(1.0, middle + half)


class TestWilson(unittest.TestCase):
    def test_nothing_is_known_before_the_first_run(self):
        self.assertEqual(wilson(0, 0), (0.0, 1.0))

    def test_known_values(self):
        low, high = wilson(10, 100)
        self.assertAlmostEqual(low, 0.0552, places=4)
        self.assertAlmostEqual(high, 0.1744, places=4)

    def test_it_narrows_with_more_runs(self):
        widths = [high - low for low, high in (wilson(n // 10, n) for n in (10, 100, 1000, 10000))]
        self.assertEqual(widths, sorted(widths, reverse=True))

    def test_it_holds_the_true_rate_nineteen_times_in_twenty(self):
        rng = random.Random(7)
        held = 0
        for _ in range(500):
            rate = rng.random()
            failures = sum(rng.random() < rate for _ in range(200))
            low, high = wilson(failures, 200)
            held += low <= rate <= high
        self.assertGreater(held / 500, 0.92)


if __name__ == "__main__":
    unittest.main()
