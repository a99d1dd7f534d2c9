/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/uffd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"

/* Debian 12's headers are Linux 6.1's: what came later, from the kernel's Documentation/admin-guide/mm/userfaultfd.rst and its ABI */
#ifndef UFFDIO_POISON
#define _UFFDIO_POISON	    0x08
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif
#ifndef UFFDIO_MOVE
#define _UFFDIO_MOVE	  0x05
#define UFFD_FEATURE_MOVE (1 << 16)
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
/* Linux 6.15, include/uapi/linux/pidfd.h: the calling process, without a descriptor */
#ifndef PIDFD_SELF_THREAD_GROUP
#define PIDFD_SELF_THREAD_GROUP (-10001)
#endif

enum { KERNEL_PAGE_BYTES = 4096 };

static int new_descriptor(int device_fd, bool *ret_user_only)
{
	int fd = -1;

	*ret_user_only = false;
	if (device_fd >= 0)
		fd = ioctl(device_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0) {
		*ret_user_only = true;
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	}
	return fd;
}

static enum secpool_error agree(int fd, uint64_t *features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = *features};

	if (ioctl(fd, UFFDIO_API, &api) != 0)
		return os_error("UFFDIO_API");
	*features = api.features;
	return SECPOOL_OK;
}

static bool can_drop_many(void)
{
	struct iovec none = {.iov_base = NULL, .iov_len = 0};

	return syscall(SYS_process_madvise, PIDFD_SELF_THREAD_GROUP, &none, 1ul,
		       MADV_DONTNEED_LOCKED, 0u) == 0;
}

enum secpool_error uffd_open(struct uffd *uffd, int device_fd, unsigned how)
{
	uint64_t had = 0, wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID;
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int probe;

	*uffd = (struct uffd){.fd = -1, .empty_fd = -1};
	probe = new_descriptor(device_fd, &uffd->user_only);
	/* a descriptor agrees on features once: ask with one, use another */
	if (probe < 0 || agree(probe, &had) != SECPOOL_OK)
		goto refused;
	os_close(&probe);
	if (!(had & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		return err_set(SECPOOL_E_NO_FAULTFD,
			"this kernel's userfaultfd can't write-protect: "
			"Linux 5.19 or later is needed");
	uffd->has_move = (had & UFFD_FEATURE_MOVE) && !(how & UFFD_WITHOUT_MOVE);
	uffd->has_poison = (had & UFFD_FEATURE_POISON) && !(how & UFFD_WITHOUT_POISON);
	uffd->has_vector = !(how & UFFD_WITHOUT_VECTOR) && can_drop_many();
	uffd->is_inline = how & UFFD_INLINE;
	if (uffd->is_inline)
		wanted |= UFFD_FEATURE_SIGBUS;
	if (uffd->has_move)
		wanted |= UFFD_FEATURE_MOVE;
	if (uffd->has_poison)
		wanted |= UFFD_FEATURE_POISON;
	uffd->fd = new_descriptor(device_fd, &uffd->user_only);
	if (uffd->fd < 0 || agree(uffd->fd, &wanted) != SECPOOL_OK)
		goto refused;
	uffd->empty_fd = memfd_create("secpool-lost", MFD_CLOEXEC);
	if (uffd->empty_fd < 0) {
		error = os_error("memfd_create");
		uffd_close(uffd);
		return error;
	}
	return SECPOOL_OK;
refused:
	error = os_error("userfaultfd");
	error = err_set(SECPOOL_E_NO_FAULTFD,
		"userfaultfd: %s: the kernel must have it, and a seccomp profile must allow it "
		"(a program without privilege gets one of its own faults, or all that keymgrd's "
		"/dev/userfaultfd or vm.unprivileged_userfaultfd=1 gives)",
		err_detail());
	os_close(&probe);
	uffd_close(uffd);
	return error;
}

void uffd_close(struct uffd *uffd)
{
	os_close(&uffd->fd);
	os_close(&uffd->empty_fd);
}

enum secpool_error uffd_register(const struct uffd *uffd, void *start, size_t bytes)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)start, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	if (ioctl(uffd->fd, UFFDIO_REGISTER, &reg) != 0)
		return os_error("UFFDIO_REGISTER of %zu bytes", bytes);
	return SECPOOL_OK;
}

enum secpool_error uffd_read_many(
	const struct uffd *uffd, struct uffd_fault *ret_faults, unsigned most, unsigned *ret_count)
{
	struct uffd_msg msgs[UFFD_READ_MOST];
	unsigned count = 0;

	if (most > UFFD_READ_MOST)
		most = UFFD_READ_MOST;
	while (count == 0) {
		ssize_t got = read(uffd->fd, msgs, most * sizeof *msgs);
		if (got < 0 && (os_interrupted() || os_would_block()))
			return SECPOOL_E_NO_EVENT;
		if (got <= 0 || (size_t)got % sizeof *msgs != 0)
			return SECPOOL_E_CLOSED;
		for (size_t i = 0; i < (size_t)got / sizeof *msgs; i++) {
			if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
				continue;
			ret_faults[count++] = (struct uffd_fault){
				.address = (uintptr_t)msgs[i].arg.pagefault.address,
				.thread = (int32_t)msgs[i].arg.pagefault.feat.ptid,
				.protect = msgs[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
				.write = msgs[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
			};
		}
	}
	*ret_count = count;
	return SECPOOL_OK;
}

enum secpool_error uffd_read(const struct uffd *uffd, struct uffd_fault *ret_fault)
{
	unsigned count;

	return uffd_read_many(uffd, ret_fault, 1, &count);
}

enum secpool_error uffd_copy(
	const struct uffd *uffd, void *to, const void *from, size_t bytes, bool protect)
{
	bool existed = false;
	size_t done = 0;

	while (done < bytes) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)to + done,
			.src = (uintptr_t)from + done,
			.len = bytes - done,
			.mode = (protect ? UFFDIO_COPY_MODE_WP : 0) |
				(uffd->is_inline ? UFFDIO_COPY_MODE_DONTWAKE : 0),
		};
		if (ioctl(uffd->fd, UFFDIO_COPY, &copy) == 0)
			break;
		if (copy.copy > 0) {
			done += (size_t)copy.copy;
		} else if (os_exists()) {
			done += KERNEL_PAGE_BYTES;
			existed = true;
		} else if (os_would_block()) {
			sched_yield(); /* the address space is changing */
		} else {
			return os_error("UFFDIO_COPY");
		}
	}
	if (existed) /* else the copying has woken them */
		uffd_wake(uffd, to, bytes);
	return SECPOOL_OK;
}

static enum secpool_error move_some(
	const struct uffd *uffd, uintptr_t to, uintptr_t from, size_t bytes, size_t *ret_moved)
{
	*ret_moved = 0;
	while (*ret_moved < bytes) {
		struct uffdio_move move = {
			.dst = to + *ret_moved,
			.src = from + *ret_moved,
			.len = bytes - *ret_moved,
		};
		if (ioctl(uffd->fd, UFFDIO_MOVE, &move) == 0) {
			*ret_moved = bytes;
			break;
		}
		if (move.move > 0)
			*ret_moved += (size_t)move.move;
		else if (os_exists() && !uffd_present((void *)(uintptr_t)move.src) &&
			 uffd_present((void *)(uintptr_t)move.dst))
			/* Linux 6.18 says so of a page that it did move, when its first try was disturbed (measured) */
			*ret_moved += KERNEL_PAGE_BYTES;
		else if (os_would_block())
			sched_yield();
		else
			return os_error("UFFDIO_MOVE");
	}
	return SECPOOL_OK;
}

enum secpool_error uffd_move(const struct uffd *uffd, void *to, void *from, size_t bytes)
{
	size_t moved, back;
	enum secpool_error error = move_some(uffd, (uintptr_t)to, (uintptr_t)from, bytes, &moved);

	if (error && moved > 0) {
		enum secpool_error undo =
			move_some(uffd, (uintptr_t)from, (uintptr_t)to, moved, &back);
		if (undo || back != moved)
			return err_set(SECPOOL_E_INTERNAL, "a page was left between two places");
	}
	return error;
}

static enum secpool_error write_protect(
	const struct uffd *uffd, void *start, size_t bytes, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = (uintptr_t)start, .len = bytes},
		.mode = mode,
	};

	while (ioctl(uffd->fd, UFFDIO_WRITEPROTECT, &wp) != 0) {
		if (!os_would_block())
			return os_error("UFFDIO_WRITEPROTECT");
		sched_yield();
	}
	return SECPOOL_OK;
}

enum secpool_error uffd_protect(const struct uffd *uffd, void *start, size_t bytes)
{
	return write_protect(uffd, start, bytes, UFFDIO_WRITEPROTECT_MODE_WP);
}

enum secpool_error uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes)
{
	return write_protect(uffd, start, bytes, 0);
}

void uffd_wake(const struct uffd *uffd, void *start, size_t bytes)
{
	struct uffdio_range range = {.start = (uintptr_t)start, .len = bytes};

	if (uffd->is_inline)
		return;
	while (ioctl(uffd->fd, UFFDIO_WAKE, &range) != 0 && os_would_block())
		sched_yield();
}

static enum secpool_error poison_some(const struct uffd *uffd, uintptr_t start, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		struct uffdio_poison poison = {
			.range = {.start = start + done, .len = bytes - done},
		};
		if (ioctl(uffd->fd, UFFDIO_POISON, &poison) == 0)
			break;
		if (poison.updated > 0)
			done += (size_t)poison.updated;
		else if (os_exists()) /* poisoned before */
			done += KERNEL_PAGE_BYTES;
		else if (os_would_block())
			sched_yield();
		else
			return os_error("UFFDIO_POISON");
	}
	return SECPOOL_OK;
}

enum secpool_error uffd_poison(const struct uffd *uffd, void *start, size_t bytes)
{
	enum secpool_error error = SECPOOL_OK;

	if (uffd->has_poison)
		error = poison_some(uffd, (uintptr_t)start, bytes);
	else if (mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, uffd->empty_fd,
			 0) == MAP_FAILED)
		error = os_error("map lost pages");
	uffd_wake(uffd, start, bytes);
	return error;
}

enum secpool_error uffd_drop(void *start, size_t bytes)
{
	/* the raw call: the library's own madvise refuses pool memory */
	if (syscall(SYS_madvise, start, bytes, MADV_DONTNEED_LOCKED) != 0)
		return os_error("MADV_DONTNEED_LOCKED");
	return SECPOOL_OK;
}

enum secpool_error uffd_drop_many(
	const struct uffd *uffd, const struct iovec *ranges, unsigned count)
{
	enum secpool_error error = SECPOOL_OK;
	size_t bytes = 0;

	for (unsigned i = 0; i < count; i++)
		bytes += ranges[i].iov_len;
	if (count > 1 && uffd->has_vector &&
		(size_t)syscall(SYS_process_madvise, PIDFD_SELF_THREAD_GROUP, ranges,
			(unsigned long)count, MADV_DONTNEED_LOCKED, 0u) == bytes)
		return SECPOOL_OK;
	/* one, or an old kernel, or it stopped half-way: dropping again what is dropped does no harm */
	for (unsigned i = 0; i < count; i++) {
		enum secpool_error one = uffd_drop(ranges[i].iov_base, ranges[i].iov_len);
		if (one)
			error = one;
	}
	return error;
}

bool uffd_present(void *page)
{
	unsigned char there = 0;

	return mincore(page, KERNEL_PAGE_BYTES, &there) == 0 && (there & 1);
}
