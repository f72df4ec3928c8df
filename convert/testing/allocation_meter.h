// Peak of the memory that operator new has handed out.
#ifndef QUIRE_CONVERT_TESTING_ALLOCATION_METER_H_
#define QUIRE_CONVERT_TESTING_ALLOCATION_METER_H_

#include <cstdint>

namespace quire {

// Counts from construction on. One at a time.
class AllocationMeter {
 public:
  AllocationMeter();
  int64_t peak_bytes() const;  // above what was held at construction

 private:
  int64_t begin_bytes_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_TESTING_ALLOCATION_METER_H_
