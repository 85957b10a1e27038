// The vector kernels, written once over the vocabulary of a vec_*.h header (ENGINE_VECTOR_HEADER) and compiled once per
// instruction set.
//
// Everything here has internal linkage and uses no inline function of the standard library: a copy of one, compiled
// for wider registers, could otherwise be the one the linker keeps for the whole program.
//
// With ENGINE_BF16_DOT the products of bf16 numbers use the bf16 dot product instruction and take bf16 activations;
// without it bf16 weights are widened in registers and multiplied with activations in floats.
#pragma once

#include "kernels/attention_inl.h"
#include "kernels/elementwise_inl.h"
#include "kernels/product_inl.h"

namespace blas_engine {
namespace {

constexpr Kernels make_kernels(Isa isa) {
    Kernels k;
    k.isa = isa;
    k.bf16_activations = Bf16Tile::activations;
    k.product = product;
    k.finish = finish;
    k.unpack = unpack;
    k.rms_norm = rms_norm;
    k.rope = rope;
    k.convert = convert;
    k.attend = attend;
    k.merge = merge;
    k.scale = scale;
    return k;
}

}  // namespace
}  // namespace blas_engine
