#include <memory>
#include <variant>

#include "bind.hpp"
#include "bptt/stream.hpp"

namespace bptt::bindings {
namespace {

class PyStream {
public:
    PyStream(const std::string& cell, py::handle weight_ih, py::handle weight_hh, py::handle bias_ih,
             py::handle bias_hh, py::handle h, py::handle c) {
        const Cell which = cell_from_name(cell);
        if (is_single("Stream", "weight_ih", weight_ih))
            make<float>(which, weight_ih, weight_hh, bias_ih, bias_hh, h, c);
        else
            make<double>(which, weight_ih, weight_hh, bias_ih, bias_hh, h, c);
    }

    py::object step(py::handle x) {
        return std::visit([&](auto& stream) { return step_of(*stream, x); }, stream_);
    }
    void reset(py::handle h, py::handle c) {
        std::visit([&](auto& stream) { reset_of(*stream, h, c); }, stream_);
    }
    py::tuple state() const {
        return std::visit(
            [](const auto& stream) { return py::make_tuple(copy(stream->h()), copy(stream->c())); }, stream_);
    }

private:
    template <class R>
    void make(Cell cell, py::handle weight_ih, py::handle weight_hh, py::handle bias_ih, py::handle bias_hh,
              py::handle h, py::handle c) {
        const std::string caller = "Stream";
        const Input<R> w_ih(caller, "weight_ih", weight_ih), w_hh(caller, "weight_hh", weight_hh),
            b_ih(caller, "bias_ih", bias_ih), b_hh(caller, "bias_hh", bias_hh), h0(caller, "h", h),
            c0(caller, "c", c);
        stream_ = std::make_unique<Stream<R>>(cell, Weights<R>{w_ih, w_hh, b_ih, b_hh}, State<R>{h0, c0});
    }

    // Some microseconds at most: the GIL stays, and guards the state.
    template <class R>
    py::object step_of(Stream<R>& stream, py::handle x) {
        static const std::string caller = "Stream.step";
        const Input<R> input(caller, "x", x);
        const Shape& shape = input.view().shape;
        if (!input.view() || shape.rank != 1 || shape[0] != stream.D())
            throw py::value_error(caller + ": x has shape " + std::string(py::str(py::getattr(x, "shape"))) +
                                  ", expected (D,) = (" + std::to_string(stream.D()) + ",)");
        py::array_t<R> y(stream.H());
        std::memcpy(y.mutable_data(), stream.step(input.view().data),
                    static_cast<std::size_t>(stream.H()) * sizeof(R));
        return std::move(y);
    }

    template <class R>
    void reset_of(Stream<R>& stream, py::handle h, py::handle c) {
        const Input<R> h0("Stream.reset", "h", h), c0("Stream.reset", "c", c);
        stream.reset({h0, c0});
    }

    template <class R>
    static py::object copy(const View<R>& view) {
        if (!view) return py::none();
        return py::array_t<std::remove_const_t<R>>({view.shape[0], view.shape[1]}, view.data);
    }

    std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>> stream_;
};

}  // namespace

void register_stream(py::module_& module) {
    py::class_<PyStream>(module, "Stream")
        .def(py::init<const std::string&, py::object, py::object, py::object, py::object, py::object,
                      py::object>(),
             py::arg("cell"), py::arg("weight_ih"), py::arg("weight_hh"), py::arg("bias_ih").none(true),
             py::arg("bias_hh").none(true), py::arg("h").none(true), py::arg("c").none(true))
        .def("step", &PyStream::step, py::arg("x"))
        .def("reset", &PyStream::reset, py::arg("h").none(true), py::arg("c").none(true))
        .def("state", &PyStream::state);
}

}  // namespace bptt::bindings
