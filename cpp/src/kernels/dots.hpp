// Dot products of all pairs of some rows.
#pragma once

#include "kernels/blocks.hpp"

namespace bptt::BPTT_SET {

// result(i, j, a_i . a_j) for all j <= i < m, in double: the square of a small gradient is no float.
// rows: their elements [column, column + depth).
template <class R>
class Dots {
public:
    template <class Result>
    static void of(const R* const* rows, Index m, Index column, Index depth, Result&& result) {
        Index i = 0;
        for (; i + 4 <= m; i += 4) of_rows<4>(rows, i, {column, column + depth}, result);
        for (; i < m; ++i) of_rows<1>(rows, i, {column, column + depth}, result);
    }

private:
    using Wide = WideLanes<R>;

    template <int height, class Result>
    static void of_rows(const R* const* rows, Index i, Range columns, Result& result) {
        Index j = 0;
        for (; j + 2 <= i + height; j += 2) block<height, 2>(rows, i, j, columns, result);
        if (j < i + height) block<height, 1>(rows, i, j, columns, result);
    }

    template <int height, int width, class Result>
    static void block(const R* const* rows, Index i, Index j, Range columns, Result& result) {
        Lanes<double> sum[height][width];
        unroll<height>([&](auto a) { unroll<width>([&](auto b) { sum[a][b] = Lanes<double>(0.0); }); });
        for_each_vector<R>(columns, [&](int, auto get, auto) BPTT_ALWAYS {
            Wide right[width];
            unroll<width>([&](auto b) BPTT_ALWAYS { right[b] = Wide(get(rows[j + b])); });
            unroll<height>([&](auto a) BPTT_ALWAYS {
                const Wide left(get(rows[i + a]));
                unroll<width>([&](auto b) BPTT_ALWAYS {
                    unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS {
                        sum[a][b] = fma(left.part[p], right[b].part[p], sum[a][b]);
                    });
                });
            });
        });
        unroll<height>([&](auto a) {
            unroll<width>([&](auto b) {
                if (j + b <= i + a) result(i + a, j + b, sum_of_lanes(sum[a][b]));
            });
        });
    }
};

}  // namespace bptt::BPTT_SET
