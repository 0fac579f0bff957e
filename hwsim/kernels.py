"""Numba kernels: the sums of single layers, and the search for requantizer tables.

Private to ``hwsim``; the typed functions around them are in ``layers`` and ``requantize``, which import this module
only when they run, so that ``import hwsim`` stays free of the compiler. Numba's integers wrap silently: whoever calls
a kernel has checked that no 64-bit integer can overflow. The kernels of the engine are in ``fused``.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

_njit = functools.partial(numba.njit, cache=True, nogil=True)


@_njit
def unfold(padded, kernel_height, kernel_width, stride, out_height, out_width, out):
    """Write the im2col matrix (taps, images * out_height * out_width) of ``padded`` (images, channels, h, w)."""
    images, channels = padded.shape[0], padded.shape[1]
    tap = 0
    for channel in range(channels):
        for row in range(kernel_height):
            for column in range(kernel_width):
                index = 0
                for image in range(images):
                    for y in range(out_height):
                        for x in range(out_width):
                            out[tap, index] = padded[image, channel, y * stride + row, x * stride + column]
                            index += 1
                tap += 1


_BLOCK = 1024


@_njit
def multiply_accumulate(weights, columns, out):
    """Write ``weights @ columns`` to ``out``, all int32: (channels, taps) by (taps, pixels)."""
    channels, taps = weights.shape
    pixels = columns.shape[1]
    for start in range(0, pixels, _BLOCK):
        stop = min(start + _BLOCK, pixels)
        for channel in range(channels):
            total = out[channel, start:stop]
            total[:] = 0
            for tap in range(taps):
                weight = weights[channel, tap]
                if weight != 0:
                    column = columns[tap, start:stop]
                    for index in range(stop - start):
                        total[index] += weight * column[index]


@_njit
def pool_windows(padded, kernel_height, kernel_width, stride, maximum, out):
    """Write the sum, or the maximum, of every window of ``padded`` (images, channels, h, w) to ``out``."""
    images, channels, out_height, out_width = out.shape
    for image in range(images):
        for channel in range(channels):
            for y in range(out_height):
                for x in range(out_width):
                    total = np.int64(0)
                    for row in range(kernel_height):
                        for column in range(kernel_width):
                            code = np.int64(padded[image, channel, y * stride + row, x * stride + column])
                            total = max(total, code) if maximum else total + code
                    out[image, channel, y, x] = total


# The search for M, K, B, S. A channel's trained function is clamp(floor(alpha * acc + kappa * skip + beta + 1/2)),
# alpha >= 0 (the caller mirrors the accumulator otherwise). For one skip value it is a staircase in acc, given by the
# first accumulator of every step: thresholds[skip, step], limited to acc_low .. acc_high + 1.

_SPLIT = 134217729.0  # 2**27 + 1
_EPSILON = 2.0**-52


@_njit
def _two_sum(a, b):
    """Return (x, y) with x = fl(a + b) and x + y = a + b exactly (Knuth)."""
    x = a + b
    part = x - a
    return x, (a - (x - part)) + (b - part)


@_njit
def _two_product(a, b):
    """Return (x, y) with x = fl(a * b) and x + y = a * b exactly (Dekker), unless it under- or overflows."""
    x = a * b
    c = _SPLIT * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLIT * b
    b_high = c - (c - b)
    b_low = b - b_high
    return x, a_low * b_low - (((x - a_high * b_high) - a_low * b_high) - a_high * b_low)


@_njit
def reaches(alpha, accumulator, kappa, skip, beta, step):
    """Return whether ``alpha * accumulator + kappa * skip + beta + 1/2 >= step``, exactly.

    The six exact terms are summed into a non-overlapping expansion (Shewchuk 1997); its largest component has the
    sign of the sum.
    """
    terms = np.empty(6)
    terms[0], terms[1] = _two_product(alpha, float(accumulator))
    terms[2], terms[3] = _two_product(kappa, float(skip))
    terms[4] = beta
    terms[5] = 0.5 - float(step)
    expansion = np.zeros(6)
    for count in range(6):
        carry = terms[count]
        for index in range(count):
            carry, expansion[index] = _two_sum(carry, expansion[index])
        expansion[count] = carry
    for index in range(5, -1, -1):
        if expansion[index] != 0.0:
            return expansion[index] > 0.0
    return True


@_njit
def first_accumulator(alpha, kappa, skip, beta, step, acc_low, acc_high):
    """Return the first accumulator of ``acc_low .. acc_high`` that reaches ``step``, or ``acc_high + 1``."""
    rest = float(step) - 0.5 - beta - kappa * skip
    if alpha > 0.0:
        crossing = rest / alpha
        size = abs(float(step)) + 1.0 + abs(beta) + abs(kappa * skip)
        error = 8.0 * _EPSILON * (size / alpha + abs(crossing))
        if error < 0.25:
            if crossing > acc_high + 1:
                return acc_high + 1
            if crossing < acc_low - 1:
                return acc_low
            nearest = np.int64(np.rint(crossing))
            if abs(crossing - nearest) > error:
                first = np.int64(np.ceil(crossing))
            else:
                first = nearest if reaches(alpha, nearest, kappa, skip, beta, step) else nearest + 1
            return min(max(first, acc_low), acc_high + 1)
    below, above = acc_low - 1, acc_high + 1
    while above - below > 1:
        middle = (below + above) >> 1
        if reaches(alpha, middle, kappa, skip, beta, step):
            above = middle
        else:
            below = middle
    return above


@_njit
def _fill_thresholds(alpha, kappa, beta, acc_low, acc_high, skip_low, low, thresholds, inner):
    """Fill ``thresholds`` (skips, steps); ``inner[skip]`` = the steps [first, last) that are crossed inside."""
    skips, steps = thresholds.shape
    for row in range(skips):
        first, last = 0, 0
        for index in range(steps):
            threshold = first_accumulator(alpha, kappa, skip_low + row, beta, low + 1 + index, acc_low, acc_high)
            thresholds[row, index] = threshold
            first += threshold <= acc_low
            last += threshold <= acc_high
        inner[row, 0] = first
        inner[row, 1] = last


@_njit
def _feasible_addends(m, k, s, acc_low, acc_high, skip_low, low, thresholds, inner, addend_low, addend_high):
    """Return the smallest and the largest B for which M, K, B, S has exactly these thresholds (empty if low > high)."""
    skips, steps = thresholds.shape
    stride = 157 if skips % 157 else 1  # far-apart rows first: what cannot fit is found out early
    for visit in range(skips):
        row = visit * stride % skips
        base = ((low + 1) << s) - k * (skip_low + row)
        first, last = inner[row, 0], inner[row, 1]
        if first > 0:
            addend_low = max(addend_low, base + ((first - 1) << s) - m * acc_low)
        if last < steps:
            addend_high = min(addend_high, base + (last << s) - 1 - m * acc_high)
        for index in range(first, last):
            least = base + (index << s) - m * thresholds[row, index]
            addend_low = max(addend_low, least)
            addend_high = min(addend_high, least + m - 1)
            if index & 255 == 255 and addend_low > addend_high:
                break
        if addend_low > addend_high:
            break
    return addend_low, addend_high


@_njit
def _addend_limits(m, k, acc_low, acc_high, skip_low, skip_high, sum_low, sum_high):
    """Return the B for which B itself and the whole sum stay within ``sum_low .. sum_high`` (M >= 0)."""
    least = m * acc_low + min(k * skip_low, k * skip_high)
    most = m * acc_high + max(k * skip_low, k * skip_high)
    return max(sum_low, sum_low - least), min(sum_high, sum_high - most)


@_njit
def _select(values, count, rank):
    """Return the element of ``rank`` in ascending order among the first ``count``, reordering them (Hoare)."""
    first, last = np.int64(0), count - 1
    while first < last:
        pivot = values[(first + last) >> 1]
        left, right = first, last
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            last = right
        elif rank >= left:
            first = left
        else:
            break
    return values[rank]


@_njit
def _median_addend(m, k, s, acc_low, acc_high, skip_low, low, thresholds, inner, row_step, work):
    """Return the B that minimises the summed distance to the intervals of B that each threshold allows."""
    skips, steps = thresholds.shape
    count = 0
    lows = 0
    for row in range(0, skips, row_step):
        base = ((low + 1) << s) - k * (skip_low + row)
        first, last = inner[row, 0], inner[row, 1]
        if first > 0:
            work[count] = base + ((first - 1) << s) - m * acc_low
            count += 1
            lows += 1
        if last < steps:
            work[count] = base + (last << s) - 1 - m * acc_high
            count += 1
        for index in range(first, last):
            least = base + (index << s) - m * thresholds[row, index]
            work[count] = least
            work[count + 1] = least + m - 1
            count += 2
            lows += 1
    return _select(work, count, max(lows - 1, 0))


@_njit
def _count_displaced(m, k, b, s, acc_low, acc_high, skip_low, low, thresholds, row_step, nearer, farther):
    """Return (pairs on which the codes differ, largest difference) over every ``row_step``-th skip value.

    At one skip value both functions are staircases of the same direction: the codes differ where an accumulator lies
    between the two thresholds of a step, by as many codes as there are such steps.
    """
    skips, steps = thresholds.shape
    pairs = 0
    largest = 0
    for row in range(0, skips, row_step):
        base = ((low + 1) << s) - k * (skip_low + row) - b
        covered = acc_low
        behind = 0
        for index in range(steps):
            needed = base + (index << s)
            if m > 0:
                threshold = min(max(-((-needed) // m), acc_low), acc_high + 1)
            else:
                threshold = acc_low if needed <= 0 else acc_high + 1
            wanted = thresholds[row, index]
            start, stop = min(threshold, wanted), max(threshold, wanted)
            nearer[index] = start
            farther[index] = stop
            if stop > start:
                pairs += max(0, stop - max(start, covered))
                covered = max(covered, stop)
                while farther[behind] <= start:
                    behind += 1
                largest = max(largest, index + 1 - behind)
    return pairs, largest


@_njit
def _finest_shift(alpha, kappa, m_high, k_low, k_high, s_max):
    """Return the largest shift at which M and K still fit, 0 if they fit at none."""
    s = 0
    while s < s_max:
        scaled, skip_scaled = np.rint(alpha * 2.0 ** (s + 1)), np.rint(kappa * 2.0 ** (s + 1))
        if scaled > m_high or skip_scaled > k_high or skip_scaled < k_low:
            break
        s += 1
    return s


@_njit
def _nearest(value, s, low, high):
    """Return ``value * 2**s`` rounded, within ``low .. high``."""
    return np.int64(min(max(np.rint(value * 2.0**s), float(low)), float(high)))


@_njit
def search_tables(
    alphas, kappas, betas, acc_lows, acc_highs, skip_low, skip_high, low, high, limits, offsets, skip_offsets, out
):
    """Search M, K, B, S for every channel: the narrowest exact, or the least displaced.

    ``alphas`` >= 0. ``limits`` int64 (channels, 6): highest M, lowest and highest K, lowest and highest B and sum,
    highest S. ``out`` int64 (channels, 6): M, K, B, S, displaced pairs, largest displacement; S = -1 if nothing fits.
    """
    skips, steps = skip_high - skip_low + 1, high - low
    thresholds = np.empty((skips, steps), np.int64)
    inner = np.empty((skips, 2), np.int64)
    work = np.empty(2 * skips * (steps + 1), np.int64)
    nearer, farther = np.empty(steps, np.int64), np.empty(steps, np.int64)
    every_row = np.int64(1)
    for channel in range(alphas.size):
        alpha, kappa, beta = alphas[channel], kappas[channel], betas[channel]
        acc_low, acc_high = acc_lows[channel], acc_highs[channel]
        m_high, k_low, k_high, sum_low, sum_high, s_max = limits[channel]
        row = out[channel]
        row[3] = -1
        _fill_thresholds(alpha, kappa, beta, acc_low, acc_high, skip_low, low, thresholds, inner)
        s_finest = _finest_shift(alpha, kappa, m_high, k_low, k_high, s_max)
        for s in range(s_finest + 1):
            m_near, k_near = _nearest(alpha, s, 0, m_high), _nearest(kappa, s, k_low, k_high)
            for candidate in range(offsets.size):
                m, k = m_near + offsets[candidate], k_near + skip_offsets[candidate]
                if m < 0 or m > m_high or k < k_low or k > k_high:
                    continue
                b_low, b_high = _addend_limits(m, k, acc_low, acc_high, skip_low, skip_high, sum_low, sum_high)
                b_low, b_high = _feasible_addends(
                    m, k, s, acc_low, acc_high, skip_low, low, thresholds, inner, b_low, b_high
                )
                if b_low <= b_high:
                    row[0], row[1], row[3], row[4], row[5] = m, k, s, 0, 0
                    row[2] = min(max(_nearest(beta + 0.5, s, sum_low, sum_high), b_low), b_high)
                    break
            if row[3] >= 0:
                break
        if row[3] >= 0:
            continue
        # No exact table fits: compare a few of the finest ones on some rows, and count the best on all.
        row_step = 16 if skips > 16 else 1
        fewest = np.int64(-1)
        levels = 0
        for s in range(s_finest, -1, -1):
            fitted = False
            m_near, k_near = _nearest(alpha, s, 0, m_high), _nearest(kappa, s, k_low, k_high)
            for candidate in range(offsets.size):
                m, k = m_near + offsets[candidate], k_near + skip_offsets[candidate]
                far = abs(offsets[candidate]) > 1 or abs(skip_offsets[candidate]) > 1
                if far or m < 0 or m > m_high or k < k_low or k > k_high:
                    continue
                b_low, b_high = _addend_limits(m, k, acc_low, acc_high, skip_low, skip_high, sum_low, sum_high)
                if b_low > b_high:
                    continue
                fitted = True
                b = _median_addend(m, k, s, acc_low, acc_high, skip_low, low, thresholds, inner, row_step, work)
                b = min(max(b, b_low), b_high)
                pairs, _ = _count_displaced(
                    m, k, b, s, acc_low, acc_high, skip_low, low, thresholds, row_step, nearer, farther
                )
                if fewest < 0 or pairs < fewest:
                    fewest = pairs
                    row[0], row[1], row[3] = m, k, s
            levels += fitted
            if levels == 2:
                break
        if fewest < 0:
            continue
        m, k, s = row[0], row[1], row[3]
        b_low, b_high = _addend_limits(m, k, acc_low, acc_high, skip_low, skip_high, sum_low, sum_high)
        b = _median_addend(m, k, s, acc_low, acc_high, skip_low, low, thresholds, inner, every_row, work)
        row[2] = min(max(b, b_low), b_high)
        row[4], row[5] = _count_displaced(
            m, k, row[2], s, acc_low, acc_high, skip_low, low, thresholds, every_row, nearer, farther
        )
