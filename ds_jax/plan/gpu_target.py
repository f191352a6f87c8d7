"""What XLA's compiler must know of a GPU that is not here."""

from __future__ import annotations

from typing import NamedTuple


class GpuTarget(NamedTuple):
  """Published or queried facts of a GPU; names as in XLA's GpuTargetConfigProto."""

  description: str
  capability: int  # major version of the compute capability
  core_count: int  # streaming multiprocessors
  fpus_per_core: int
  clock_ghz: float
  shared_memory: int  # KiB per core; a block may ask for 1 KiB less
  l2_cache: int  # MiB


# As XLA's own descriptions have them (github.com/openxla/xla, xla/backends/gpu/target_config).
TARGETS = {
  'a100': GpuTarget('NVIDIA A100-SXM4-80GB', 8, 108, 64, 1.41, 164, 40),
  'h100': GpuTarget('NVIDIA H100 80GB HBM3', 9, 132, 128, 1.98, 228, 50),
  'h200': GpuTarget('NVIDIA H200 141GB HBM3e', 9, 132, 128, 1.98, 228, 50),
}


def target_config(name: str, memory: int, bandwidth: float) -> str:
  """The description of a GPU for XLA, as a text proto.

  Args:
    name: of TARGETS.
    memory: bytes.
    bandwidth: of the memory, bytes/s.
  """
  gpu = TARGETS[name]
  device = {
    'threads_per_block_limit': 1024,
    'threads_per_warp': 32,
    'threads_per_core_limit': 2048,
    'registers_per_core_limit': 2**16,
    'registers_per_block_limit': 2**16,
    'block_dim_limit_x': 2**31 - 1,
    'block_dim_limit_y': 2**16 - 1,
    'block_dim_limit_z': 2**16 - 1,
    'shared_memory_per_block': 48 * 2**10,
    'shared_memory_per_core': gpu.shared_memory * 2**10,
    'shared_memory_per_block_optin': (gpu.shared_memory - 1) * 2**10,
    'core_count': gpu.core_count,
    'fpus_per_core': gpu.fpus_per_core,
    'clock_rate_ghz': gpu.clock_ghz,
    'l2_cache_size': gpu.l2_cache * 2**20,
    'memory_bandwidth': int(bandwidth),
    'device_memory_size': memory,
  }
  fields = '\n'.join(f'  {field}: {value}' for field, value in device.items())
  return (
    f'gpu_device_info {{\n{fields}\n'
    f'  cuda_compute_capability {{ major: {gpu.capability} }}\n}}\n'
    'platform_name: "CUDA"\nruntime_version { major: 13 }\n'
    'dnn_version_info { major: 9 minor: 10 }\n'
    f'device_description_str: "{gpu.description}"\n'
  )
