// Hostile input must not cost more than it weighs: every test of a program that links this is
// capped. It fails where it takes over 2 seconds of processor time, or lets the process's resident
// memory grow by 64 MiB; with sanitizers, eight times that.
#ifndef QUIRE_FORMAT_TEST_CAPS_H_
#define QUIRE_FORMAT_TEST_CAPS_H_

#include <cstdint>

namespace quire {

// Other caps for the test that runs, which is large by its nature.
void AllowThisTest(double seconds, int64_t mebibytes);

}  // namespace quire

#endif  // QUIRE_FORMAT_TEST_CAPS_H_
