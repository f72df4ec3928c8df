"""fuzz_target: a parser's LLVMFuzzerTestOneInput, replayed as a test and run by libFuzzer."""

def fuzz_target(name, deps, mutator = [], mutator_of = None):
    """NAME.cc defines LLVMFuzzerTestOneInput; corpus/NAME/ holds its seeds and what was found.

    :NAME_replay_test runs it over the corpus. :NAME_fuzz is the fuzzer itself, for clang (run.sh);
    with `mutator`, the dependencies of NAME_mutator.cc, it changes inputs by their structure, or as
    the target `mutator_of` does.
    """
    native.cc_library(
        name = name,
        testonly = True,
        srcs = [name + ".cc"],
        deps = deps + [":fuzz_file"],
        alwayslink = True,
    )
    native.cc_test(
        name = name + "_replay_test",
        srcs = ["replay_main.cc"],
        args = ["tests/fuzz/corpus/" + name],
        data = native.glob(["corpus/" + name + "/*"]),
        deps = [":" + name],
    )
    native.cc_binary(
        name = name + "_fuzz",
        testonly = True,
        srcs = [(mutator_of or name) + "_mutator.cc"] if mutator else [],
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [":" + name] + mutator,
    )
