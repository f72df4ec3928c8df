#include "convert/testing/allocation_meter.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> held_bytes{0};
std::atomic<int64_t> peak_held_bytes{0};

void* Allocate(std::size_t size) {
  void* p = std::malloc(size);
  if (p == nullptr) std::abort();
  const int64_t held = held_bytes += malloc_usable_size(p);
  int64_t peak = peak_held_bytes;
  while (held > peak && !peak_held_bytes.compare_exchange_weak(peak, held)) {
  }
  return p;
}

void Free(void* p) {
  if (p != nullptr) held_bytes -= malloc_usable_size(p);
  std::free(p);
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new[](std::size_t size) { return Allocate(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void operator delete(void* p) noexcept { Free(p); }
void operator delete[](void* p) noexcept { Free(p); }
void operator delete(void* p, std::size_t) noexcept { Free(p); }
void operator delete[](void* p, std::size_t) noexcept { Free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { Free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { Free(p); }

namespace quire {

AllocationMeter::AllocationMeter() : begin_bytes_(held_bytes) { peak_held_bytes = begin_bytes_; }

int64_t AllocationMeter::peak_bytes() const { return peak_held_bytes - begin_bytes_; }

}  // namespace quire
