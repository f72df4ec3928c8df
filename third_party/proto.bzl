"""cc_proto: C++ code from one .proto file, by the system's protoc, during the build."""

def cc_proto(name, src, visibility = None):
    stem = src[:-len(".proto")]
    native.genrule(
        name = name + "_gen",
        srcs = [src],
        outs = [stem + ".pb.h", stem + ".pb.cc"],
        cmd = "$(location @protobuf//:protoc) --cpp_out=$(GENDIR) -I. $(location " + src + ")",
        tools = ["@protobuf//:protoc"],
    )
    native.cc_library(
        name = name,
        srcs = [stem + ".pb.cc"],
        hdrs = [stem + ".pb.h"],
        visibility = visibility,
        deps = ["@protobuf"],
    )
