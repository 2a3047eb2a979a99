"""What a machine is called."""

from fedsparse_jax.core.machine import processor


def test_the_processor_is_named_with_its_vectors(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx avx2 sse\n\n")
    assert processor(tmp_path / "cpuinfo").startswith("A CPU, ") and processor(tmp_path / "cpuinfo").endswith(
        "avx2 avx"
    )
    assert "cores" in processor(tmp_path / "none") and processor(tmp_path / "none").split(",")[0]
