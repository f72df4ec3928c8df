// Time since this process began.
#ifndef QUIRE_RUNTIME_PROCESS_CLOCK_H_
#define QUIRE_RUNTIME_PROCESS_CLOCK_H_

namespace quire {

// Milliseconds since the process was started, loading of the program included. The first call fixes
// the start: the earlier it comes, the more exact. The kernel tells the start only in ticks (10 ms:
// /proc/self/stat, starttime), so within that tick the processor time used so far decides; what is
// left uncertain is time spent waiting before the first call, at most one tick.
double MillisecondsSinceStart();

}  // namespace quire

#endif  // QUIRE_RUNTIME_PROCESS_CLOCK_H_
