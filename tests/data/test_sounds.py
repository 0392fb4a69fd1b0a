"""Spoken digits, and what a cochlea makes of sounds that are known."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from neuropil import data
from neuropil.data import sounds
from neuropil.errors import ConfigError, DataError, MissingDataError, ShapeError, UnknownNameError


def tone(frequency: float, seconds: float = 0.5, rate: int = 8000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate), dtype=torch.double) / rate)


def test_each_voice_says_each_digit_once():
    digits = data.load_sounds()
    pairs = sorted(zip(digits.voices, digits.labels.tolist(), strict=True))
    assert len(set(pairs)) == 50 and len(set(digits.voices)) == 5
    for clip in digits.clips:
        assert 0.2 < len(clip) / digits.rate < 1.5 and 0.02 < clip.abs().max() <= 1
    padded = digits.padded(0.5)
    assert padded.shape == (50, 4000) and torch.equal(padded[7][:1000], digits.clips[7][:1000])


def test_sounds_are_in_the_catalogue_and_fetching_what_is_there_verifies_it():
    assert "spoken-digits" in [entry.name for entry in data.catalogue() if entry.present]
    assert data.fetch("spoken-digits").name == "spoken-digits"


def test_missing_altered_and_unknown_sounds_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path))
    with pytest.raises(UnknownNameError, match="did you mean 'spoken-digits'"):
        data.load_sounds("spoken-digit")
    absent = replace(sounds.SOUNDS["spoken-digits-tuxpaint"], system=(tmp_path / "nowhere",))
    monkeypatch.setitem(sounds.SOUNDS, "spoken-digits-tuxpaint", absent)
    with pytest.raises(MissingDataError, match="tuxpaint-stamps-default") as caught:
        data.load_sounds("spoken-digits-tuxpaint")
    assert "\n" not in str(caught.value)
    known = sounds.SOUNDS["spoken-digits"]
    copy = shutil.copytree(known.shipped, tmp_path / "copy")
    with (copy / "fr-june" / "3.wav").open("ab") as file:
        file.write(b"\0\0")
    monkeypatch.setitem(sounds.SOUNDS, "spoken-digits", replace(known, shipped=copy))
    with pytest.raises(DataError, match="altered"):
        data.load_sounds()


def test_fetching_takes_the_sounds_out_of_their_package(tmp_path, monkeypatch):
    """With stand-ins for apt-get and dpkg-deb that put files where the package has them."""
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "root" / "sounds"
    source = sounds.SOUNDS["spoken-digits"].shipped / "it-carlo"
    package = tmp_path / "package"
    inside = package / place.relative_to(place.anchor)
    inside.mkdir(parents=True)
    for digit in (1, 2):
        shutil.copy(source / f"{digit}.wav", inside / f"{digit}_it.wav")
    (inside / "1_it.txt").write_text("uno")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in (
        ("apt-get", 'touch "$3.deb"'),
        ("dpkg-deb", f'cp -r "{package}" "$3"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    known = replace(
        sounds.SOUNDS["spoken-digits-tuxpaint"],
        clips=2,
        pattern=r"(?P<digit>[0-9])_(?P<voice>[a-z]+)\.wav",
        system=(place,),
    )
    monkeypatch.setitem(sounds.SOUNDS, known.name, known)
    with pytest.raises(MissingDataError, match="altered or incomplete"):
        data.fetch(known.name)
    import hashlib

    content = b"".join(path.name.encode() + path.read_bytes() for path in sorted(inside.glob("*.wav")))
    monkeypatch.setitem(sounds.SOUNDS, known.name, replace(known, sha256=hashlib.sha256(content).hexdigest()))
    assert sorted(path.name for path in data.fetch(known.name).iterdir()) == ["1_it.wav", "2_it.wav"]
    assert data.load_sounds(known.name).labels.tolist() == [1, 2]


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 8000), (11025, 8000), (8000, 16000)])
def test_a_tone_resampled_is_the_tone_at_the_other_rate(rate, wanted):
    fade = torch.hann_window(rate, periodic=False, dtype=torch.double)
    sound = data.resample(tone(440.0, 1.0, rate) * fade, rate, wanted)
    expected = tone(440.0, 1.0, wanted) * torch.hann_window(wanted, periodic=False, dtype=torch.double)
    assert sound.shape == expected.shape
    assert (sound - expected).abs().max() < 2e-3
    high = data.resample(tone(5000.0, 1.0, rate) * fade, rate, wanted) if wanted < 10_000 < rate else None
    assert high is None or high.abs().max() < 1e-3


def test_filters_share_every_frequency_between_their_centres():
    filters = data.mel_filters(12, 257, 16000, low=100, high=6000).double()
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([100, 6000]) / 700)), 14) / 2595) - 1)
    bins = np.linspace(0, 8000, 257)
    inner = (bins >= edges[1]) & (bins <= edges[-2])
    np.testing.assert_allclose(filters.sum(0)[inner], 1, atol=1e-6)
    for row, left, right in zip(filters, edges[:-2], edges[2:], strict=True):
        assert not row[(bins <= left) | (bins >= right)].any()


def test_a_tone_is_heard_by_the_band_of_its_frequency():
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([80, 4000]) / 700)), 18) / 2595) - 1)
    for band in range(1, 16):
        energies = data.mel_energies(tone(edges[band + 1])[None], 8000, channels=16)
        assert energies[10:-10].argmax(-1).unique().tolist() == [band]


def test_loudness_does_not_matter_and_silence_says_nothing():
    sound = torch.cat([torch.zeros(2000), tone(500.0, 0.25).float(), torch.zeros(2000)])[None]
    spikes = data.cochlea_encode(sound, 8000, channels=16)
    assert torch.equal(spikes, data.cochlea_encode(sound / 64, 8000, channels=16))
    assert spikes[:20].sum() == 0 and spikes[20:40, 0, 0].sum() > 0
    rises, falls = spikes.sum((0, 1))
    assert rises.sum() > 5 and torch.equal(rises, falls)  # back where it began
    assert data.cochlea_encode(torch.zeros(1, 4000), 8000).sum() == 0


def test_levels_can_be_read_off_the_spikes():
    clip = data.load_sounds().clips[4][None]
    events = data.cochlea_encode(clip, 8000, channels=20, threshold=3.0, limit=None)
    energies = data.mel_energies(clip, 8000, channels=20)
    levels = (10 * torch.log10(energies / energies.max())).clamp_min(-60) + 60
    assert (data.level_decode(events, 3.0) - levels).abs().max() <= 3.0 + 1e-3


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: data.mel_filters(60, 33, 8000), ConfigError, "narrower"),
        (lambda: data.mel_filters(10, 65, 8000, high=5000), ConfigError, "<= 4000"),
        (lambda: data.mel_energies(torch.zeros(8000), 8000), ShapeError, "batch, samples"),
        (lambda: data.mel_energies(torch.full((1, 900), math.nan), 8000), DataError, "NaN"),
        (lambda: data.mel_energies(torch.zeros(1, 900), 8000, step=0), ConfigError, "> 0"),
        (lambda: data.cochlea_encode(torch.zeros(1, 900), 8000, floor=0), ConfigError, "decibels"),
        (lambda: data.resample(torch.zeros(9), 0, 8000), ConfigError, "samples per second"),
        (lambda: data.load_sounds().padded(0), ConfigError, "time > 0"),
    ],
)
def test_bad_input_gets_one_line(call, kind, match):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
