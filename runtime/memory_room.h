// How much memory a model's file may fill, as the cgroups and the machine stand at the moment.
#ifndef QUIRE_RUNTIME_MEMORY_ROOM_H_
#define QUIRE_RUNTIME_MEMORY_ROOM_H_

#include <cstdint>
#include <string>

#include "runtime/footprint/cgroup.h"
#include "runtime/footprint/proc.h"

namespace quire {

// Bytes for pages of one file and for memory of this process that it has not touched yet, together.
// `cached`: bytes of the file in the page cache now, whoever brought them there. Page cache that
// some process maps, of other files, is not taken from it; other page cache is free for the taking.
struct MemoryRoom {
  int64_t bytes = 0;
  std::string limit;  // what bounds it: "the limit of cgroup /a (2.50 GB)"
};

// limit - usage + its page cache - what it maps of other files + what is cached of the file but
// charged to others (a page is charged to the cgroup that was first to read it).
int64_t RoomInCgroup(const CgroupMemory& cgroup, int64_t cached);
// MemAvailable, in which all page cache counts as free - what is mapped of other files.
int64_t RoomInMachine(const MemInfo& machine, int64_t cached);

// The smallest of both, for the process whose folder is `proc`, less a margin: 1/256, 256 KiB for
// each CPU, since cgroups charge in batches, and 2 MiB for the process's own heap.
MemoryRoom FindMemoryRoom(const std::string& proc, const ReadText& read, int64_t cached);

}  // namespace quire

#endif  // QUIRE_RUNTIME_MEMORY_ROOM_H_
