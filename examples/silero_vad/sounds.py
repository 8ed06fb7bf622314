"""Sounds to try a voice detector with, made of sines: nobody's voice is needed."""

import numpy as np

RATE = 16_000


def silence(seconds: float) -> np.ndarray:
    """What a quiet room sounds like."""
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)


def tone(seconds: float) -> np.ndarray:
    """A whistle of 440 Hz."""
    return (0.3 * np.sin(2 * np.pi * 440 * times(seconds))).astype(np.float32)


def vowels(seconds: float) -> np.ndarray:
    """Something like "a-i-a-i": the harmonics of a voice, louder around the formants of each vowel, four a second."""
    t = times(seconds)
    pitch = 2 * np.pi * np.cumsum(120 + 15 * np.sin(2 * np.pi * 2.3 * t)) / RATE
    is_a = (np.sin(2 * np.pi * 2 * t) > 0)[:, None]
    formants = np.where(is_a, [700, 1220, 2600], [300, 2250, 3000])
    sound = np.zeros(len(t))
    for harmonic in range(1, 30):
        gains = np.exp(-(((harmonic * 120 - formants) / 120) ** 2) / 2).sum(axis=1) + 0.01
        sound += gains * np.sin(harmonic * pitch)
    syllables = np.abs(np.sin(2 * np.pi * 2 * t)) ** 0.5
    return (0.2 * sound * syllables / np.abs(sound).max()).astype(np.float32)


def times(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE
