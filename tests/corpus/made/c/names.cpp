// Overloads, members and namespaces that share a name.
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace drivers {
int close(int handle);
}

struct Stream {
    int handle = 0;
    int close() { return drivers::close(handle); }  // case: P10-R1 clean
    int walk(int n) { return n > 0 ? this->walk(n - 1) : 0; }  // case: P10-R1 violation
    Stream() = default;
    Stream(const Stream &) = delete;  // case: P10-R3 clean
};

int close(Stream &stream) { return stream.close(); }  // case: P10-R1 clean

int scale(int n, int by) { return n * by; }
int scale(int n) { return scale(n, 2); }  // case: P10-R1 clean

template <typename T> T power(T base, int n) { return n == 0 ? T(1) : base * power(base, n - 1); }  // case: P10-R1 violation

int total(const std::vector<int> &values)
{
    int sum = 0;
    for (int value : values) {  // case: P10-R2 clean
        sum += value;
    }
    return sum;
}

int first_of(const int &value) { return value; }  // case: P10-R7 clean

int *grow(std::size_t count)
{
    return new int[count];  // case: P10-R3 violation
}

void shrink(int *numbers)
{
    delete[] numbers;  // case: P10-R3 violation
}

std::unique_ptr<Stream> open_stream()
{
    return std::make_unique<Stream>();  // case: P10-R3 violation
}

Stream *place(void *memory)
{
    return new (memory) Stream;  // case: P10-R3 clean
}

struct Pool {
    Stream *slots[4];
    void initPool()
    {
        slots[0] = new Stream;  // case: P10-R3 clean
    }
    void refill()
    {
        slots[1] = new Stream;  // case: P10-R3 violation
    }
};

bool spin(volatile bool &ready)
{
    while (!ready) {  // case: P10-R2 violation
    }
    return true;
}
