// Memory for numbers: aligned to cache lines, never copied by accident.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

namespace recur {

template <class T>
class Buffer {
public:
    Buffer() = default;
    // Not initialised: pages of a large buffer cost nothing until they are written.
    explicit Buffer(size_t size) : size_(size) {
        if (size) data_ = static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64)));
    }
    Buffer(size_t size, T value) : Buffer(size) {
        for (size_t i = 0; i < size; ++i) data_[i] = value;
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }

    // At least this much room; what was in it is lost when it grows.
    void need(size_t size) {
        if (size > size_) *this = Buffer(size);
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

private:
    void swap(Buffer& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    T* data_ = nullptr;
    size_t size_ = 0;
};

inline int padded(int n, int to = 16) { return (n + to - 1) / to * to; }

}  // namespace recur
