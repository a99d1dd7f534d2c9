/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/emumedia.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"

/* How often a waiting access looks at the word again. */
#define SLICE_NS (200ull * 1000)

enum secpool_error emumedia_map(int fd, uint64_t capacity, const uint8_t **ret_control)
{
	struct stat status;
	void *map;

	if (fstat(fd, &status) != 0)
		return os_error("the media");
	if ((uint64_t)status.st_size < emumedia_file_bytes(capacity))
		return err_set(SECPOOL_E_DEVICE_GONE, "the media are too short");
	map = mmap(NULL, EMUMEDIA_CONTROL_BYTES, PROT_READ, MAP_SHARED, fd, (off_t)capacity);
	if (map == MAP_FAILED)
		return os_error("map the media's control page");
	*ret_control = map;
	return SECPOOL_OK;
}

void emumedia_unmap(const uint8_t *control)
{
	if (control)
		syscall(SYS_munmap, control, (size_t)EMUMEDIA_CONTROL_BYTES);
}

enum secpool_error emumedia_obey(
	const uint8_t *control, const _Atomic bool *given_up, uint64_t most_ns, bool *ret_silent)
{
	uint64_t began = 0;

	for (;;) {
		uint64_t word, now, waited;
		if (guarded_load(control + EMUMEDIA_WORD_AT, &word) != SECPOOL_OK)
			return SECPOOL_E_DEVICE_GONE;
		if (word == EMUMEDIA_NORMAL || word == EMUMEDIA_SILENT) {
			*ret_silent = word == EMUMEDIA_SILENT;
			return SECPOOL_OK;
		}
		if ((word & 0xff) != EMUMEDIA_SLOW && word != EMUMEDIA_STUCK)
			return SECPOOL_E_DEVICE_GONE;
		now = clock_now_ns();
		began = began ? began : now;
		waited = now - began;
		if ((word & 0xff) == EMUMEDIA_SLOW && waited >= word >> 8) {
			*ret_silent = false;
			return SECPOOL_OK;
		}
		if (given_up && atomic_load(given_up))
			return SECPOOL_E_DEVICE_GONE;
		if (most_ns > 0 && waited >= most_ns)
			return SECPOOL_E_TIMEOUT;
		clock_sleep_ns((word & 0xff) == EMUMEDIA_SLOW && (word >> 8) - waited < SLICE_NS
				       ? (word >> 8) - waited
				       : SLICE_NS);
	}
}

enum secpool_error emumedia_canary(const uint8_t *control, const _Atomic bool *given_up,
	uint64_t most_ns, uint64_t *ret_canary)
{
	bool silent;
	enum secpool_error error = emumedia_obey(control, given_up, most_ns, &silent);

	if (error)
		return error;
	if (!silent)
		return guarded_load(control + EMUMEDIA_CANARY_AT, ret_canary);
	*ret_canary = 0;
	return SECPOOL_OK;
}
