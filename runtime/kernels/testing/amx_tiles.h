// AMX's tile registers in software, so that amx.cc runs where the CPU has no tiles. It is included
// before amx.cc, takes the place of the instructions, and gives the table a name of its own:
// ModelledAmxKernels. After the definitions in Intel's Architecture Instruction Set Extensions
// Programming Reference, chapter 3; what raises an exception there ends the process here.
#ifndef QUIRE_RUNTIME_KERNELS_TESTING_AMX_TILES_H_
#define QUIRE_RUNTIME_KERNELS_TESTING_AMX_TILES_H_

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace amx_tiles {

struct Tile {
  int rows, row_bytes;
  uint8_t data[16][64];
};

// Of a thread, as the registers are.
struct State {
  bool configured;
  Tile tiles[8];
};
inline State& Registers() {
  static thread_local State state;
  return state;
}

inline void Require(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "a CPU with AMX would fault: %s\n", what);
  abort();
}

inline Tile& Of(int tile) {
  Require(Registers().configured, "tiles used without a configuration");
  Require(tile >= 0 && tile < 8 && Registers().tiles[tile].rows > 0, "a tile without a shape");
  return Registers().tiles[tile];
}

inline void LoadConfig(const void* from) {
  uint8_t bytes[64];
  memcpy(bytes, from, sizeof bytes);
  Require(bytes[0] == 1, "the palette is not 1");
  for (int i = 1; i < 16; ++i) Require(bytes[i] == 0, "start row, or a reserved byte");
  State state{};
  state.configured = true;
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
    const int rows = bytes[48 + i];
    Require(row_bytes <= 64 && rows <= 16, "a tile is 16 rows of 64 bytes at most");
    Require((rows == 0) == (row_bytes == 0), "rows and row bytes are both 0 or both not");
    state.tiles[i].rows = rows;
    state.tiles[i].row_bytes = row_bytes;
  }
  for (int i = 32; i < 48; ++i) Require(bytes[i] == 0, "palette 1 has eight tiles");
  for (int i = 56; i < 64; ++i) Require(bytes[i] == 0, "palette 1 has eight tiles");
  Registers() = state;
}

inline void Release() { Registers() = State{}; }

inline void Zero(int tile) { memset(Of(tile).data, 0, sizeof(Tile::data)); }

inline void Load(int tile, const void* base, int64_t stride) {
  Tile& to = Of(tile);
  memset(to.data, 0, sizeof to.data);
  for (int r = 0; r < to.rows; ++r) {
    memcpy(to.data[r], static_cast<const uint8_t*>(base) + r * stride, to.row_bytes);
  }
}

inline void Store(int tile, void* base, int64_t stride) {
  const Tile& from = Of(tile);
  for (int r = 0; r < from.rows; ++r) {
    memcpy(static_cast<uint8_t*>(base) + r * stride, from.data[r], from.row_bytes);
  }
}

// TDPBSUD: c[m][n] += sum over k and i of signed a[m][4k + i] * unsigned b[k][4n + i].
inline void DotSignedUnsigned(int c_tile, int a_tile, int b_tile) {
  Tile &c = Of(c_tile), &a = Of(a_tile), &b = Of(b_tile);
  Require(c_tile != a_tile && a_tile != b_tile && b_tile != c_tile, "one tile used twice");
  Require(c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes == 4 * b.rows &&
              c.row_bytes % 4 == 0 && a.row_bytes % 4 == 0,
          "shapes that do not go together");
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      uint32_t sum;  // wraps
      memcpy(&sum, &c.data[m][4 * n], 4);
      for (int k = 0; k < b.rows; ++k) {
        for (int i = 0; i < 4; ++i) {
          sum += static_cast<uint32_t>(static_cast<int8_t>(a.data[m][4 * k + i]) *
                                       static_cast<int>(b.data[k][4 * n + i]));
        }
      }
      memcpy(&c.data[m][4 * n], &sum, 4);
    }
  }
}

// The kernel's permission.
template <typename... Arguments>
long Grant(Arguments...) {
  return 0;
}

constexpr bool IsTileFeature(const char* name) {
  return name[0] == 'a' && name[1] == 'm' && name[2] == 'x';
}

}  // namespace amx_tiles

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_loadconfig amx_tiles::LoadConfig
#define _tile_release amx_tiles::Release
#define _tile_zero amx_tiles::Zero
#define _tile_loadd amx_tiles::Load
#define _tile_stored amx_tiles::Store
#define _tile_dpbsud amx_tiles::DotSignedUnsigned
#define syscall amx_tiles::Grant
#define __builtin_cpu_supports(name) \
  (amx_tiles::IsTileFeature(name) || __builtin_cpu_supports(name))
#define AmxKernels ModelledAmxKernels

#endif  // QUIRE_RUNTIME_KERNELS_TESTING_AMX_TILES_H_
