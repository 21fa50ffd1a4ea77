"""Libraries in the place of CUDA's, cuDNN's and TensorRT's, made for what ONNX Runtime's providers are linked with.

They let the providers be loaded where there is neither a GPU nor 2 GB of libraries. They say that there is
one GPU, which is as far as a provider's options are read, and that whatever is asked of it fails.
"""

import subprocess

# Where functions are that do not say it: by how their names begin.
UNVERSIONED = {"createInfer": "libnvinfer.so.10", "getInferLib": "libnvinfer.so.10",
               "getPlugin": "libnvinfer.so.10", "createNvOnnx": "libnvonnxparser.so.10"}
# An object of C++ whose every method gives nothing.
OBJECT = """static long place[64];
static long nothing(void) { return 0; }
static void *methods[64];
static void **object = methods;
"""
# No CUDA-capable device is detected.
FAILS = "return 100;"
BODIES = {
    "cudaGetDeviceCount": "*(int *)a = 1; return 0;",
    "cudaGetErrorString": 'return (long)"this is not CUDA";',
    "cudaGetErrorName": 'return (long)"cudaErrorNoDevice";',
    # Kernels are made known when the provider is loaded, and never run.
    "__cudaRegisterFatBinary": "return (long)&place;",
    "__cudaRegisterFatBinaryEnd": "return 0;",
    "__cudaRegisterFunction": "return 0;",
    "__cudaRegisterVar": "return 0;",
    "__cudaUnregisterFatBinary": "return 0;",
    "getInferLibVersion": "return 101300;",
    "getPluginRegistry": "for (int i = 0; i < 64; i++) methods[i] = &nothing; return (long)&object;",
}


def make(providers, folder):
    """Leaves in a folder a library for each that these providers need."""
    for library, names in wanted(providers).items():
        source = folder / f"{library}.c"
        source.write_text(OBJECT + "".join(
            f"long {name}(void *a) {{ (void)place; {BODIES.get(name, FAILS)} }}\n" for name in sorted(names)))
        versions = folder / f"{library}.map"
        versions.write_text(f"{library} {{ global: *; }};\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}",
                        f"-Wl,--version-script={versions}", "-o", folder / library, source], check=True)


def wanted(providers):
    """Functions by the library in which a provider looks for them."""
    found = {}
    for provider in providers:
        listed = subprocess.run(["nm", "-D", "--undefined-only", provider], check=True, text=True,
                                capture_output=True).stdout
        for line in listed.splitlines():
            name, _, library = line.split()[-1].partition("@")
            if not library:
                begins = [library for begin, library in UNVERSIONED.items() if name.startswith(begin)]
                library = begins[0] if begins else ""
            if library.startswith(("libcu", "libnv")):
                found.setdefault(library, set()).add(name)
    # Needed, and nothing of it is used by name.
    found.setdefault("libcurand.so.10", set())
    return found
