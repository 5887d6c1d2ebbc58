// THE pybind11 include: NumPy arrays in and out, and the checks that only make sense for them (is it an
// array, of which dtype, contiguous). Shapes and values are the core's to check.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "bptt/types.hpp"

namespace bptt::bindings {

namespace py = pybind11;

// ---- refusals --------------------------------------------------------------------------------------

[[noreturn]] inline void type_error(const std::string& caller, const std::string& sentence) {
    throw py::type_error(caller + ": " + sentence);
}

inline std::string type_name(py::handle object) {
    return py::cast<std::string>(py::type::of(object).attr("__name__"));
}
inline std::string dtype_name(const py::array& array) {
    return py::cast<std::string>(py::str(array.dtype()));
}

inline py::array array_of(const std::string& caller, const char* what, py::handle object) {
    if (!py::isinstance<py::array>(object))
        type_error(caller, std::string(what) + " is a " + type_name(object) + ", expected a NumPy array");
    return py::reinterpret_borrow<py::array>(object);
}

// ---- inputs ----------------------------------------------------------------------------------------

inline Shape shape_of(const std::string& caller, const char* what, const py::array& array) {
    if (array.ndim() > Shape::kMaxRank)
        throw py::value_error(caller + ": " + what + " has " + std::to_string(array.ndim()) +
                              " dimensions, expected at most " + std::to_string(Shape::kMaxRank));
    Shape shape;
    shape.rank = static_cast<int>(array.ndim());
    for (int i = 0; i < shape.rank; ++i) shape.size[i] = array.shape(i);
    return shape;
}

// Whether the array's elements are R in this machine's byte order.
template <class R>
bool holds(const py::array& array) {
    const auto* descriptor = py::detail::array_descriptor_proxy(py::detail::array_proxy(array.ptr())->descr);
    return descriptor->type_num == py::dtype::num_of<R>() &&
           (descriptor->byteorder == '=' || descriptor->byteorder == '|');
}

// Whether its memory can be used as it is.
inline bool is_plain(const py::array& array) {
    constexpr int wanted = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    return (array.flags() & wanted) == wanted;
}

// True for float32, false for float64; anything else is refused. It decides the dtype of a call.
inline bool is_single(const std::string& caller, const char* what, py::handle object) {
    const py::array array = array_of(caller, what, object);
    if (holds<float>(array)) return true;
    if (holds<double>(array)) return false;
    type_error(caller,
               std::string(what) + " has dtype " + dtype_name(array) + ", expected float32 or float64");
}

// An argument's memory, kept alive (and where it was not contiguous, copied) while this lives. None is
// "not given".
template <class R>
class Input {
public:
    Input() = default;
    Input(const std::string& caller, const char* what, py::handle object) {
        if (object.is_none()) return;
        py::array array = array_of(caller, what, object);
        if constexpr (std::is_same_v<R, std::int64_t>) {  // indices: any integers
            const char kind = array.dtype().kind();
            if (kind != 'i' && kind != 'u')
                type_error(caller,
                           std::string(what) + " has dtype " + dtype_name(array) + ", expected integers");
            if (kind == 'u' && array.itemsize() == sizeof(R))  // what is too large must not wrap round
                array = py::module_::import("numpy").attr("minimum")(array, std::numeric_limits<R>::max());
        } else if (!holds<R>(array)) {
            type_error(caller, std::string(what) + " has dtype " + dtype_name(array) + ", expected " +
                                   py::cast<std::string>(py::str(py::dtype::of<R>())));
        }
        if (!holds<R>(array) || !is_plain(array)) {
            array = py::array_t<R, py::array::c_style | py::array::forcecast>::ensure(array);
            if (!array) throw py::error_already_set();
        }
        view_ = View<const R>(static_cast<const R*>(array.data()), shape_of(caller, what, array));
        held_ = std::move(array);
    }

    const View<const R>& view() const { return view_; }
    operator View<const R>() const { return view_; }
    py::dtype dtype() const { return py::reinterpret_borrow<py::array>(held_).dtype(); }

private:
    py::object held_;
    View<const R> view_;
};

using IndexInput = Input<std::int64_t>;

// Memory that a call writes to: exactly this dtype, contiguous, writeable; never a copy.
template <class R>
View<R> in_place(const std::string& caller, const char* what, py::handle object) {
    py::array array = array_of(caller, what, object);
    if (!holds<R>(array))
        type_error(caller, std::string(what) + " has dtype " + dtype_name(array) + ", expected " +
                               py::cast<std::string>(py::str(py::dtype::of<R>())));
    if (!is_plain(array))
        throw py::value_error(caller + ": " + what + " is not C-contiguous, and is written in place");
    if (!array.writeable())
        throw py::value_error(caller + ": " + what + " is read-only, and is written in place");
    return View<R>(static_cast<R*>(array.mutable_data()), shape_of(caller, what, array));
}

// ---- results ---------------------------------------------------------------------------------------

// NumPy's array of this memory, or of its own where there is none: what py::array makes, but without vectors
// of shape and strides, for a short call's time is that of its arrays.
template <class R>
py::object new_array(const Shape& shape, const R* data) {
    using api = py::detail::npy_api;
    Py_intptr_t sizes[Shape::kMaxRank];
    std::copy_n(shape.size, shape.rank, sizes);
    PyObject* const array = api::get().PyArray_NewFromDescr_(
        api::get().PyArray_Type_, py::dtype::of<R>().release().ptr(), shape.rank, sizes, nullptr,
        const_cast<R*>(data), data != nullptr ? api::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
    if (array == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(array);
}

// Whether small arrays are copied, which costs less than an owner. Not while most memory is spent: what a
// longer call will have in the library's memory counts in a short one too.
inline bool copies_small = true;

// The array as NumPy's, in the same memory or a copy of it; None where there is none.
template <class R>
py::object to_numpy(const Array<R>& array) {
    constexpr std::size_t small = 4096;
    if (!array) return py::none();
    const auto bytes = static_cast<std::size_t>(array.elements()) * sizeof(R);
    const bool copies = bytes == 0 || (bytes <= small && copies_small);
    py::object result = new_array<R>(array.shape(), copies ? nullptr : array.data());
    if (!copies) {
        py::capsule owner(new Array<R>(array), [](void* held) { delete static_cast<Array<R>*>(held); });
        if (py::detail::npy_api::get().PyArray_SetBaseObject_(result.ptr(), owner.release().ptr()) != 0)
            throw py::error_already_set();
    } else if (bytes > 0) {
        std::memcpy(py::detail::array_proxy(result.ptr())->data, array.data(), bytes);
    }
    return result;
}

inline py::object read_only(py::object array) {
    if (!array.is_none())
        py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
}

}  // namespace bptt::bindings
