/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/device.h"

#include "enclave/pagecipher.h"
#include "lib/prober.h"

bool device_usable(const struct device *device)
{
	/* acquire: pairs with the store of whoever found it gone (loss_run clears copies after it) */
	return device && !atomic_load_explicit(&device->gone, memory_order_acquire);
}

static bool is_suspect(const struct device *device)
{
	/* relaxed: a hint; who comes too early waits as he would have before */
	return atomic_load_explicit(&device->suspect, memory_order_relaxed);
}

bool device_doubtful(const struct device *device)
{
	return is_suspect(device) ||
	       atomic_load_explicit(&device->distrusted, memory_order_relaxed);
}

void device_give_up(struct device *device, uint32_t cause)
{
	uint32_t none = 0;

	atomic_compare_exchange_strong(&device->cause, &none, cause);
	atomic_store(&device->gone, true);
}

enum secpool_error device_read(struct device *device, uint64_t offset, void *to, size_t bytes)
{
	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	return is_suspect(device) ? prober_read(device, offset, to, bytes)
				  : device_backend_read(device, offset, to, bytes);
}

enum secpool_error device_use(struct device *device, uint64_t offset, size_t bytes, uint8_t *copy,
	guarded_work *work, void *arg)
{
	enum secpool_error error;

	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	if (!is_suspect(device))
		return device->ops->use(device, offset, bytes, copy, work, arg);
	error = prober_read(device, offset, copy, bytes);
	return error ? error : work(copy, arg);
}

enum secpool_error device_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	if (device->read_only)
		return SECPOOL_E_DENIED;
	return is_suspect(device) ? prober_write(device, offset, from, bytes)
				  : device_backend_write(device, offset, from, bytes);
}

bool device_seen_alive(struct device *device)
{
	if (!device_usable(device))
		return false;
	return is_suspect(device) ? prober_seen_alive(device) : device_backend_alive(device);
}

void device_prefetch(const struct device *device, uint64_t offset, size_t bytes)
{
	/* what follows is asked for while this is decrypted */
	enum { LINE_BYTES = 64, MOST_BYTES = PAGECIPHER_AHEAD_BYTES };

	if (is_suspect(device))
		return;
	for (size_t at = 0; at < bytes && at < MOST_BYTES; at += LINE_BYTES)
		__builtin_prefetch(device->base + offset + at, 0, 2);
}
