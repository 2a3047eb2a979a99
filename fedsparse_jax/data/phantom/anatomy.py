"""The synthetic ageing brain: a person's anatomy at an age, and the T1w scan that a scanner makes of it.

Every structure is a soft level set, evaluated where a person's warp puts each voxel in a common template (RAS
mm, origin in the middle of the brain), so that any grid over the MNI box can be rendered. Rates of ageing
follow published curves: cortical thickness Storsve 2014, lateral ventricles Kaye 1992 and Curra 2019,
hippocampus Fraser 2015 and Nobis 2019, sulci Kochunov 2005, grey-white contrast Salat 2009, deep grey
Callaghan 2014, white-matter lesions de Kort 2024. Shapes, the spread between people and the scanners are
choices of this file.
"""

import functools
from typing import NamedTuple

import numpy as np

from fedsparse_jax.data.nifti import FOV, grid_affine

CSF = 0.14  # T1 intensity, relative to young white matter
FRONT = 86.0  # mm from the middle of the brain to the frontal pole
LOG_VENTRICLES = {"F": -0.07, "M": 0.07, "": 0.0}  # men's ventricles are larger; by how much is our choice
# Of a patient, on the log scale: as in mild dementia the hippocampi are smaller and the ventricles larger; our choice.
PATIENT_HIPPOCAMPUS, PATIENT_VENTRICLES = -0.22, 0.30


# --- who is scanned, and where ----------------------------------------------------------------


class Person(NamedTuple):
    """The anatomy behind a scan: what a perfect reader of the image would know."""

    age: float  # years
    sex: str  # "F", "M", or "" for neither
    seed: int  # of the folding and the warp, the same for all scans of a person
    true_gap: float  # brain age minus age, years: no image predicts age better than this
    vent_ml: float  # both lateral ventricles
    third_mm: float  # width of the third ventricle
    thick_mm: float  # cortical thickness
    sulcus_mm: float  # mean sulcal width
    depth_mm: float  # sulcal depth
    rim_mm: float  # width of the subarachnoid space
    hippo_ml: float  # each hippocampus
    wmh_ml: float  # white-matter lesions
    gm: float  # T1 intensity of grey matter, relative to young white matter
    wm: float  # T1 intensity of white matter, same unit
    deep: float  # volume of thalamus and basal ganglia, relative to age 45
    folds: float  # density of the folding, relative; carries no age
    iron: float  # T1 brightening of the deep grey


def draw_person(
    age: float,
    rng: np.random.Generator,
    sex: str = "",
    spread: float = 1.0,
    *,
    sex_strength: float = 1.0,
    patient: bool = False,
) -> Person:
    """Draws somebody's anatomy; the same generator state at another age gives the same person, aged.

    Args:
        age: years; the curves are meant for 40 to 90.
        rng: source of everything personal.
        sex: "F", "M", or "" for neither.
        spread: factor on all differences between people of one age; 0 gives the median brain.
        sex_strength: factor on the difference between the sexes.
        patient: smaller hippocampi and larger ventricles than others of that age.
    """
    noise = lambda sd: float(spread * sd * rng.standard_normal())
    gap = noise(2.0)
    since = lambda sd: age - 45.0 + gap + noise(sd)  # years since 45 of one structure
    late = lambda t, onset: max(t - onset, 0.0)
    t_vent, t_cortex, t_sulcus = since(2.0), since(2.0), since(2.0)
    t_hippo, t_wmh, t_contrast, t_deep = since(3.0), since(2.5), since(4.0), since(3.0)
    log_hippo = -0.0038 * min(t_hippo, 10) - 0.0098 * min(late(t_hippo, 10), 15) - 0.0112 * late(t_hippo, 25)
    growth = 0.020 * t_vent + 0.00022 * t_vent * abs(t_vent) + sex_strength * LOG_VENTRICLES[sex]
    if patient:
        log_hippo, growth = log_hippo + PATIENT_HIPPOCAMPUS, growth + PATIENT_VENTRICLES
    return Person(
        age=float(age),
        sex=sex,
        true_gap=gap,
        vent_ml=float(18.0 * np.exp(growth + noise(0.22))),
        third_mm=max(1.2, 3.0 + 0.06 * t_vent + noise(0.8)),
        thick_mm=(3.0 + noise(0.12)) * (1 - 0.0028 * t_cortex - 0.0015 * late(t_cortex, 25)),
        sulcus_mm=max(0.4, 1.4 + 0.055 * t_sulcus + 0.03 * late(t_sulcus, 30) + noise(0.30)),
        depth_mm=20.0 - 0.04 * t_sulcus + noise(1.5),
        rim_mm=max(0.2, 0.6 + 0.035 * t_sulcus + noise(0.30)),
        hippo_ml=float(3.6 * np.exp(log_hippo + noise(0.07))),
        wmh_ml=float(np.clip(0.7 * np.exp(0.068 * t_wmh + noise(0.45)), 0, 60)),
        gm=0.60 + 0.0008 * t_contrast + noise(0.010),
        wm=1.0 - 0.0012 * t_contrast + noise(0.010),
        deep=float(np.exp(-0.0040 * t_deep + noise(0.06))),
        folds=float(np.exp(noise(0.10))),
        iron=0.0010 * t_deep + noise(0.012),
        seed=int(rng.integers(2**31)),
    )


class Site(NamedTuple):
    """What one scanner does to all its images."""

    gain: float = 1.0
    gamma: float = 1.0  # contrast: intensity ** gamma
    bias: float = 0.10  # SD of the log of the bias field
    noise: float = 0.02  # Rician sigma at 2 mm voxels, relative to white matter
    blur: float = 0.3  # 0 to 1: half of it is what a voxel gets from its neighbours on each axis
    gm: float = 0.0  # offset of the grey-matter intensity


def draw_sites(count: int, seed: int, strength: float = 1.0) -> list[Site]:
    """Draws scanners, the first ones the same for any ``count``; ``strength`` scales their differences."""
    rng = np.random.default_rng([seed, 77])
    normal = lambda sd: float(sd * strength * rng.standard_normal())
    uniform = lambda width: float(width * strength * rng.random())
    return [
        Site(
            gain=np.exp(normal(0.25)),
            gamma=np.exp(normal(0.16)),
            bias=0.06 + uniform(0.08),
            noise=0.015 + uniform(0.02),
            blur=min(uniform(0.5), 1.0),
            gm=normal(0.04),
        )
        for _ in range(count)
    ]


# --- geometry -----------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where the voxels lie in the template: mm right, to the front and up of the middle of the brain."""

    x: np.ndarray  # f32[*shape]
    y: np.ndarray
    z: np.ndarray
    side: np.ndarray  # |x|: both halves have the same structures
    voxel: float  # mm, the width of the soft edges

    def soft(self, distance):
        """Share of a voxel inside a surface, from the signed distance in mm, positive inside."""
        return np.clip(distance / self.voxel + 0.5, 0.0, 1.0)

    def ball(self, centre, radii):
        """Approximate signed distance (mm) to an ellipsoid in the midline, axes along x, y, z."""
        return _ellipsoid(self.x, self.y, self.z, centre, radii)

    def pair(self, centre, radii):
        """The same for two ellipsoids, one in each half; ``centre`` is that of the right one."""
        return _ellipsoid(self.side, self.y, self.z, centre, radii)


def _ellipsoid(x, y, z, centre, radii):
    square = ((x - centre[0]) * (1 / radii[0])) ** 2
    square += ((y - centre[1]) * (1 / radii[1])) ** 2
    square += ((z - centre[2]) * (1 / radii[2])) ** 2
    return (1.0 - np.sqrt(square)) * float(np.prod(radii)) ** (1 / 3)


@functools.lru_cache(maxsize=32)
def _spline(size: int, knots: int) -> np.ndarray:
    """Cubic B-splines f32[size, knots]: control points to samples along one axis."""
    t = np.abs(np.linspace(0, knots - 1, size)[:, None] - np.arange(knots))
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6).astype(np.float32)


def _field(rng, shape, knots, count=1):
    """Smooth Gaussian random fields f32[count, *shape] from normal control points.

    Axis by axis, the first one while the array is small: so no product is large enough for BLAS to use threads,
    which on a busy machine cost more than they bring.
    """
    coarse = rng.standard_normal((count, *knots)).astype(np.float32)
    first, second, third = map(_spline, shape, knots)
    rows = (first @ coarse.reshape(count, knots[0], -1)).reshape(count, shape[0], *knots[1:])
    return second @ (rows @ third.T)


def _place(shape, anatomy, scan) -> Place:
    """Rotation (2 degrees SD), shift, scale and smooth warp that spatial normalisation left behind."""
    ax, ay, az = anatomy.normal(0, 0.035, 3).tolist()
    shift = anatomy.normal(0, 1.8, 3) + (0, -18, 14)
    shift[2] += 0.3 * scan.standard_normal()  # people do not lie the same way twice
    sx, sy, sz = anatomy.normal(1, 0.020, 3).tolist()
    warp = 4.2 * _field(anatomy, shape, (6, 7, 6), 3)
    matrix = grid_affine(shape)
    lines = [np.arange(n) * matrix[i, i] + matrix[i, 3] - shift[i] for i, n in enumerate(shape)]
    x, y, z = np.meshgrid(*[line.astype(np.float32) for line in lines], indexing="ij", sparse=True)
    px = (x * sx - y * az) + z * ay + warp[0]
    py = (y * sy + x * az) - z * ax + warp[1]
    pz = (z * sz - x * ay) + y * ax + warp[2]
    return Place(px, py, pz, np.abs(px), max(float(np.diag(matrix)[:3].mean()), 1.0))


# --- anatomy ------------------------------------------------------------------------------------


def _paint(image, share, intensity):
    """Replaces a share of each voxel, in place."""
    image += share * (intensity - image)


def _envelope(at: Place):
    """Signed distances (mm) to the surfaces of cerebrum with temporal lobes, cerebellum, and brain stem."""
    height = np.where(at.z > 0, np.float32(1 / 60), np.float32(1 / 44))
    cap = np.sqrt((at.x * (1 / 67)) ** 2 + (at.y * (1 / FRONT)) ** 2 + (at.z * height) ** 2)
    cerebrum = np.maximum((1 - cap) * 66, at.pair((44, 8, -28), (22, 40, 20)))
    return cerebrum, at.pair((17, -48, -46), (35, 30, 24)), at.ball((0, -16, -44), (13, 14, 34))


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _template_folds():
    """Wave vectors (rad/mm) and phases of the folding that everybody shares."""
    rng = np.random.default_rng(2208)
    waves = _unit(rng.standard_normal((7, 3))) * (2 * np.pi / rng.uniform(24, 38, (7, 1)))
    return waves, rng.uniform(0, 2 * np.pi, 7)


WAVES, PHASES = _template_folds()


def _sulcal_sheets(at: Place, who: Person, rng):
    """Distance (mm) to the nearest sulcus: zeros of shared waves, plus four that are this person's alone."""
    own = _unit(rng.standard_normal((4, 3))) * (2 * np.pi / rng.uniform(18, 28, (4, 1)))
    waves = np.concatenate([WAVES, own]) * who.folds
    phases = np.concatenate([PHASES + rng.normal(0, 0.35, 7), rng.uniform(0, 2 * np.pi, 4)])
    pattern = np.zeros_like(at.x)
    for (kx, ky, kz), phase in zip(waves.tolist(), phases.tolist()):
        pattern += np.sin(at.side * kx + at.y * ky + at.z * kz + phase)
    return pattern * float(1 / np.sqrt(0.5 * np.sum(waves**2)))  # over the rms slope: mm


def _fissure_floor(at: Place):
    """Height (mm) above which the halves are apart; below it runs the corpus callosum."""
    return 24.0 - 0.011 * at.y**2


def _cortical_depth(at: Place, who: Person, cerebrum, front, rng):
    """Depth (mm) below the nearest pial surface: outer rim, sulcal wall or interhemispheric fissure."""
    pial = cerebrum - who.rim_mm
    below = np.maximum(pial - who.depth_mm, 0)
    sulcus = np.sqrt(_sulcal_sheets(at, who, rng) ** 2 + below**2) - 0.5 * who.sulcus_mm * (1 + 0.3 * front)
    under = np.maximum(_fissure_floor(at) - at.z, 0)
    fissure = np.sqrt(at.x**2 + under**2) - (0.6 + 0.45 * who.sulcus_mm)
    return np.minimum(np.minimum(pial, sulcus), fissure)


def _cerebrum(at: Place, who: Person, cerebrum, gm: float, rng):
    """Cerebrospinal fluid, cortex, white matter. Returns the image and the share of white matter."""
    front = np.clip(at.y * (1 / FRONT), -1, 1)  # frontal lobes age faster than occipital ones
    depth = _cortical_depth(at, who, cerebrum, front, rng)
    white = at.soft(depth - who.thick_mm * (1 - 0.06 * front))
    image = CSF + at.soft(depth) * (gm - CSF)
    _paint(image, white, who.wm)
    callosum = at.soft(at.ball((0, -2, 18), (9, 36, 6))) * at.soft(_fissure_floor(at) - 1 - at.z)
    _paint(image, callosum, who.wm)
    return image, white


def _deep_grey(at: Place, who: Person, image, gm: float):
    """Thalamus, lentiform and caudate, which shrink and gather iron."""
    size = who.deep ** (1 / 3)
    scaled = lambda *radii: [size * r for r in radii]
    thalamus = at.pair((10, -8, 2), scaled(8, 14, 8))
    lentiform = at.pair((25, 14, 0), scaled(6.5, 16, 11))
    caudate = at.pair((15, 24, 8), scaled(5, 12, 8))
    _paint(image, at.soft(np.maximum(np.maximum(thalamus, lentiform), caudate)), gm + 0.10 + who.iron)


def _lateral_ventricles(at: Place, who: Person):
    """Signed distance (mm): frontal horn and body, which lean outwards to the back, and atrium."""
    size = (who.vent_ml / 18.0) ** 0.5
    lean = at.side - 4 - np.maximum(-at.y, 0) * 0.22
    body = _ellipsoid(lean, at.y, at.z, (4 + 1.5 * size, 12, 12), (4.2 * size, 32, 6.0 * size))
    return np.maximum(body, at.pair((23, -32, 2), (5.0 * size, 20, 6.5 * size)))


def _lesions(at: Place, who: Person, image, white, lateral, gm: float, rng):
    """White-matter lesions, dark in T1: caps and bands along the ventricles, and deep spots."""
    texture = _field(rng, image.shape, (13, 15, 13))[0]
    caps = 0.6 * who.wmh_ml**0.45 + 2.5 * texture + lateral
    spots = (texture - (2.05 - 0.40 * float(np.log1p(who.wmh_ml)))) * 9
    _paint(image, at.soft(np.maximum(caps, spots) - 1) * white * 0.8, gm + 0.04)


def _ventricles_and_hippocampus(at: Place, who: Person, image, lateral, gm: float):
    """Hippocampus, and fluid in lateral ventricles, third ventricle and temporal horns."""
    size, hippo = (who.vent_ml / 18.0) ** 0.5, (who.hippo_ml / 3.6) ** (1 / 3)
    _paint(image, at.soft(at.pair((27, -4, -21), (7.5 * hippo, 19 * hippo, 6.5 * hippo))), gm + 0.04)
    horn = at.pair((33, -2, -18), (2.2 * size / hippo, 17, 3.2 * size / hippo))
    third = at.ball((0, 2, 0), (0.5 * who.third_mm, 14, 12))
    _paint(image, at.soft(np.maximum(np.maximum(lateral, third), horn)), CSF)


def _hindbrain(at: Place, who: Person, image, surfaces, gm: float):
    """Cerebellum with its folia, and brain stem."""
    cerebrum, cerebellum, stem = surfaces
    folia = np.sin(at.z * 0.9 + at.y * 0.35) * 0.11 + 0.11
    share = at.soft(cerebellum - 0.6 * who.rim_mm) * (cerebrum < 4)
    _paint(image, share, gm + 0.05 + folia * at.soft(cerebellum - 6))
    _paint(image, at.soft(stem) * (at.z < -16), 0.93 * who.wm)


# --- scanner ------------------------------------------------------------------------------------


def _blur(image, amount: float):
    for axis in range(3):
        neighbours = np.roll(image, 1, axis) + np.roll(image, -1, axis)
        image = (1 - 0.5 * amount) * image + (0.25 * amount) * neighbours
    return image


def _scan(image, site: Site, rng):
    """Blur, contrast, bias field, Rician noise, gain: from relative intensities to scanner units."""
    if site.blur:
        image = _blur(image, site.blur)
    bias = np.exp(site.bias * _field(rng, image.shape, (3, 3, 3))[0])
    image = np.maximum(image, 1e-3) ** site.gamma * bias
    sigma = site.noise * (8.0 / float(np.prod(np.array(FOV) / image.shape))) ** 0.25
    real, imaginary = sigma * rng.standard_normal((2, *image.shape), dtype=np.float32)
    gain = float(600.0 * site.gain * np.exp(0.12 * rng.standard_normal()))
    return np.sqrt((image + real) ** 2 + imaginary**2) * gain


def render_scan(
    who: Person, shape: tuple[int, int, int] = (48, 56, 48), site: Site | None = None, scan_seed: int = 0
) -> np.ndarray:
    r"""Scans somebody.

    Args:
        who: the person.
        shape: voxels of a grid that fills the MNI box, see `nifti.grid_affine`.
        site: the scanner; None for a plain one.
        scan_seed: another value is another scan of the same brain: noise, bias field, gain, position.

    Returns:
        ``f32[*shape]``, about 600 in white matter, skull-stripped: exactly 0 outside the brain and above 0 in it.
    """
    site = site or Site()
    anatomy = np.random.default_rng([who.seed, 1])
    scan = np.random.default_rng([who.seed, 2, scan_seed])
    at, gm = _place(shape, anatomy, scan), who.gm + site.gm
    surfaces = _envelope(at)
    image, white = _cerebrum(at, who, surfaces[0], gm, anatomy)
    lateral = _lateral_ventricles(at, who)
    _deep_grey(at, who, image, gm)
    _lesions(at, who, image, white, lateral, gm, anatomy)
    _ventricles_and_hippocampus(at, who, image, lateral, gm)
    _hindbrain(at, who, image, surfaces, gm)
    inside = at.soft(np.maximum(np.maximum(surfaces[0], surfaces[1]), surfaces[2]))
    return _scan(image, site, scan) * inside * (inside > 0.5)
