#pragma once

#include <cstdint>

#include "sampling/sampling_params.h"
#include "wire/msgpack_reader.h"

namespace blas_engine {

// Reads a SamplingParams map: every key has a default, unknown keys are skipped. Parameters that the engine cannot
// honour are named in `params.unsupported`. Throws MsgpackError on wrong types.
void read_sampling_params(MsgpackReader& reader, SamplingParams& params);

// A token id; anything outside int32 becomes -1, which no vocabulary contains.
int32_t read_token_id(MsgpackReader& reader);

}  // namespace blas_engine
