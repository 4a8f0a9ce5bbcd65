/* Moves a process's wall clock: preloaded, it adds what is in a file to every reading of it.
 *
 * The file (WALL_CLOCK_FILE) holds one 64-bit number, nanoseconds, and is mapped: a change counts
 * from the next reading on, and costs nothing. Monotonic clocks and timed waits are left alone, as
 * the kernel leaves them when somebody sets the clock. (libfaketime wraps the waits of pthreads,
 * too; a Python process with threads then waits 5 to 15 ms for each change of thread.)
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("WALL_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        offset_ns = mapped;
}

int clock_gettime(clockid_t id, struct timespec *reading) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, reading);
    if (!failed && offset_ns && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t ns = reading->tv_sec * SECOND_NS + reading->tv_nsec + *offset_ns;
        reading->tv_sec = ns / SECOND_NS;
        reading->tv_nsec = ns % SECOND_NS;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict reading, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed && reading) {
        reading->tv_sec = now.tv_sec;
        reading->tv_usec = now.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *reading) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return (time_t)-1;
    if (reading)
        *reading = now.tv_sec;
    return now.tv_sec;
}
