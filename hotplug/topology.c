/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/topology.h"

#include <cxl/libcxl.h>
#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "hotplug/poison.h"
#include "hotplug/sanitise.h"
#include "lib/base/media.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

#define DAX_DEVICES "/sys/bus/dax/devices"
#define NODES	    "/sys/devices/system/node"

#define PCI_DEVICES "/sys/bus/pci/devices"

/* The longest file of sysfs that is a number or a word; a function's configuration space; the class code of CXL memory (CXL 3.0 section 8.1.12.1). */
enum { NUMBER_BYTES = 64, CONFIG_BYTES = 4096, CLASS_CXL_MEMORY = 0x0502 };

static bool read_number(const char *path, uint64_t *ret_number)
{
	char *text = NULL, *end;
	size_t count = 0;
	uint64_t number;
	bool good;

	if (os_read_file(path, NUMBER_BYTES, &text, &count) != SECPOOL_OK)
		return false;
	number = strtoull(text, &end, 0);
	good = end != text && (*end == '\n' || *end == '\0');
	free(text);
	if (good)
		*ret_number = number;
	return good;
}

/* A number below a folder of sysfs. */
static bool read_below(const char *folder, const char *name, const char *file, uint64_t *ret_number)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof path, "%s/%s/%s", folder, name, file) < (int)sizeof path &&
	       read_number(path, ret_number);
}

__attribute__((format(printf, 2, 3))) static void advise(
	struct topology_device *device, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(device->advice, sizeof device->advice, format, args);
	va_end(args);
}

/* A text of a device's: nothing of it may end a line or a word where it is shown. */
static void take_text(char *to, size_t to_bytes, const char *from)
{
	snprintf(to, to_bytes, "%s", from && from[0] ? from : "unknown");
	for (char *at = to; *at; at++)
		if (*at <= ' ' || *at > '~')
			*at = '_';
}

/* Whether a dax device is in devdax mode: else it is system memory (driver kmem), or has no driver. */
static bool is_devdax(const char *dax)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t length;

	snprintf(path, sizeof path, DAX_DEVICES "/%s/driver", dax);
	length = readlink(path, target, sizeof target - 1);
	target[length > 0 ? length : 0] = '\0';
	return strstr(target, "/device_dax") != NULL;
}

/* The dax device whose memory lies in the region's range of addresses. */
static bool find_dax(uint64_t start, uint64_t bytes, char dax[TOPOLOGY_NAME_BYTES])
{
	DIR *folder = opendir(DAX_DEVICES);
	struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder)) != NULL) {
		uint64_t resource;
		found = strlen(entry->d_name) < TOPOLOGY_NAME_BYTES && entry->d_name[0] != '.' &&
			read_below(DAX_DEVICES, entry->d_name, "resource", &resource) &&
			resource >= start && resource - start < bytes;
		if (found)
			snprintf(dax, TOPOLOGY_NAME_BYTES, "%s", entry->d_name);
	}
	if (folder)
		closedir(folder);
	return found;
}

static void take_dax(struct topology_device *device, uint64_t start, uint64_t bytes)
{
	char dax[TOPOLOGY_NAME_BYTES];
	uint64_t node, align = 0;

	if (!find_dax(start, bytes, dax)) {
		advise(device,
			"%s has no devdax device: 'ndctl create-namespace --mode devdax' for "
			"persistent memory, 'daxctl create-device' for volatile",
			device->region);
		return;
	}
	if (!is_devdax(dax)) {
		advise(device,
			"%s is not in devdax mode: 'daxctl reconfigure-device --mode=devdax "
			"--force %s'",
			dax, dax);
		return;
	}
	if (!read_below(DAX_DEVICES, dax, "align", &align) || align > MEDIA_UNIT_BYTES) {
		advise(device, "%s has an alignment of %llu: the pool needs 2M or less", dax,
			(unsigned long long)align);
		return;
	}
	if (!read_below(DAX_DEVICES, dax, "size", &device->dax_bytes) ||
		device->dax_bytes < 2ull * MEDIA_UNIT_BYTES) {
		advise(device, "%s is smaller than 4M", dax);
		return;
	}
	snprintf(device->dax, sizeof device->dax, "%s", dax);
	if (read_below(DAX_DEVICES, dax, "target_node", &node) && node <= INT32_MAX) {
		char name[TOPOLOGY_TEXT_BYTES];
		uint64_t latency;
		device->numa_node = (int32_t)node;
		snprintf(name, sizeof name, "node%d", device->numa_node);
		if (read_below(NODES, name, "access0/initiators/read_latency", &latency) &&
			latency <= UINT32_MAX)
			device->latency_ns = (uint32_t)latency;
	}
}

/* How many targets a region has; the memdev of the first. */
static unsigned targets_of(struct cxl_region *region, struct cxl_memdev **ret_memdev)
{
	struct cxl_memdev_mapping *mapping;
	unsigned count = 0;

	*ret_memdev = NULL;
	cxl_mapping_foreach(region, mapping)
	{
		struct cxl_decoder *decoder = cxl_mapping_get_decoder(mapping);
		if (decoder && count == 0)
			*ret_memdev = cxl_decoder_get_memdev(decoder);
		count++;
	}
	return count;
}

static struct topology_device *find(
	struct topology_device *list, size_t count, const struct cxl_memdev *memdev)
{
	const char *name = memdev ? cxl_memdev_get_devname((struct cxl_memdev *)memdev) : "";

	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].memdev, name) == 0)
			return &list[i];
	return NULL;
}

static void take_region(struct topology_device *list, size_t count, struct cxl_region *region)
{
	struct cxl_memdev *memdev;
	unsigned targets = targets_of(region, &memdev);
	struct topology_device *device = find(list, count, memdev);
	const char *name = cxl_region_get_devname(region);

	if (!device)
		return; /* of a device that is gone */
	if (targets != 1) {
		advise(device,
			"%s interleaves %u memdevs: the pool takes each for itself ('cxl "
			"create-region -w 1')",
			name, targets);
		return;
	}
	if (cxl_region_is_enabled(region) != 1) {
		advise(device, "%s is not enabled: 'cxl enable-region %s'", name, name);
		return;
	}
	snprintf(device->region, sizeof device->region, "%.15s", name);
	device->advice[0] = '\0';
	take_dax(device, cxl_region_get_resource(region), cxl_region_get_size(region));
}

static void take_regions(struct cxl_ctx *context, struct topology_device *list, size_t count)
{
	struct cxl_bus *bus;

	cxl_bus_foreach(context, bus)
	{
		struct cxl_decoder *decoder;
		cxl_decoder_foreach(cxl_bus_get_port(bus), decoder)
		{
			struct cxl_region *region;
			cxl_region_foreach(decoder, region) take_region(list, count, region);
		}
	}
}

static uint32_t read_health(struct cxl_memdev *memdev)
{
	struct cxl_cmd *command = cxl_cmd_new_get_health_info(memdev);
	uint32_t health = UINT32_MAX;

	if (command && cxl_cmd_submit(command) == 0 && cxl_cmd_get_mbox_status(command) == 0) {
		health = 0;
		if (cxl_cmd_health_info_get_maintenance_needed(command) == 1)
			health |= MSG_HEALTH_MAINTENANCE;
		if (cxl_cmd_health_info_get_performance_degraded(command) == 1)
			health |= MSG_HEALTH_DEGRADED;
		if (cxl_cmd_health_info_get_hw_replacement_needed(command) == 1)
			health |= MSG_HEALTH_REPLACE;
		if (cxl_cmd_health_info_get_media_normal(command) == 0)
			health |= MSG_HEALTH_MEDIA;
	}
	if (command)
		cxl_cmd_unref(command);
	return health;
}

/* The window of addresses in which a region of the memdev can be; "DECODER" where libcxl shows none. */
static const char *root_decoder(struct cxl_memdev *memdev)
{
	struct cxl_bus *bus = cxl_memdev_get_bus(memdev); /* NULL while it is being removed */
	struct cxl_decoder *decoder;

	if (!bus)
		return "DECODER";
	cxl_decoder_foreach(cxl_bus_get_port(bus), decoder)
	{
		if (cxl_decoder_get_target_by_memdev(decoder, memdev))
			return cxl_decoder_get_devname(decoder);
	}
	return "DECODER";
}

bool topology_ats_may_be_on(const uint8_t *config, size_t count)
{
	enum { FIRST = 0x100, ATS = 0x000f, CONTROL_AT = 6, ENABLE = 0x80, ENTRIES_MOST = 960 };
	size_t at = FIRST;

	if (count < CONFIG_BYTES)
		return true; /* not shown to us */
	for (unsigned i = 0; at >= FIRST && at + 8 <= count && i < ENTRIES_MOST; i++) {
		uint32_t header;
		memcpy(&header, config + at, sizeof header);
		if ((header & 0xffff) == ATS)
			return config[at + CONTROL_AT + 1] & ENABLE;
		at = header >> 20 & 0xffc;
	}
	return false;
}

/* Whether the function can read or write memory of this host: DESIGN.md section 2. */
static void judge_reach(struct topology_device *device, const char *host)
{
	char path[PATH_MAX], *text = NULL;
	uint64_t class_code = 0;
	size_t count = 0;
	bool strict;

	device->reach[0] = '\0';
	if (!read_below(PCI_DEVICES, host, "class", &class_code) ||
		class_code >> 8 != CLASS_CXL_MEMORY) {
		snprintf(device->reach, sizeof device->reach, "%.40s is not a memory function",
			host);
		return;
	}
	snprintf(path, sizeof path, PCI_DEVICES "/%.40s/iommu_group/type", host);
	strict = os_read_file(path, NUMBER_BYTES, &text, &count) == SECPOOL_OK &&
		 strcmp(text, "DMA\n") == 0;
	if (!strict)
		snprintf(device->reach, sizeof device->reach,
			"%.40s is not behind strict IOMMU translation (iommu_group/type: %.*s)",
			host, text ? (int)strcspn(text, "\n") : 4, text ? text : "none");
	free(text);
	text = NULL;
	snprintf(path, sizeof path, PCI_DEVICES "/%.40s/config", host);
	if (strict && (os_read_file(path, CONFIG_BYTES, &text, &count) != SECPOOL_OK ||
			      topology_ats_may_be_on((const uint8_t *)text, count)))
		snprintf(device->reach, sizeof device->reach,
			"%.40s has Address Translation Services on, or does not show them", host);
	free(text);
}

static void take_memdev(struct topology_device *device, struct cxl_memdev *memdev)
{
	*device = (struct topology_device){.numa_node = cxl_memdev_get_numa_node(memdev)};
	snprintf(device->memdev, sizeof device->memdev, "%.15s", cxl_memdev_get_devname(memdev));
	take_text(device->firmware, sizeof device->firmware,
		cxl_memdev_get_firmware_verison(memdev)); /* as libcxl 76 spells it */
	device->serial = cxl_memdev_get_serial(memdev);
	device->persistent_bytes = cxl_memdev_get_pmem_size(memdev);
	device->volatile_bytes = cxl_memdev_get_ram_size(memdev);
	device->health = read_health(memdev);
	if (poison_read(device->memdev, &device->poisoned) != SECPOOL_OK)
		device->poisoned = POISON_UNKNOWN;
	device->sanitise = sanitise_look(SANITISE_BUS, device->memdev);
	judge_reach(device, cxl_memdev_get_host(memdev));
	if (!cxl_memdev_is_enabled(memdev))
		advise(device, "it is not enabled: 'cxl enable-memdev %s'", device->memdev);
	else
		advise(device, "it has no region: 'cxl create-region -t %s -m -d %s -w 1 %s'",
			device->persistent_bytes > 0 ? "pmem" : "ram", root_decoder(memdev),
			device->memdev);
}

enum secpool_error topology_read(struct topology_device list[TOPOLOGY_MOST], size_t *ret_count)
{
	struct cxl_memdev *memdev;
	struct cxl_ctx *context;
	size_t count = 0;

	if (cxl_new(&context) != 0)
		return err_set(SECPOOL_E_SYSTEM, "libcxl could not be set up");
	cxl_set_log_priority(context, LOG_CRIT); /* a device may go while it is read */
	cxl_memdev_foreach(context, memdev)
	{
		if (count < TOPOLOGY_MOST)
			take_memdev(&list[count++], memdev);
	}
	take_regions(context, list, count);
	cxl_unref(context);
	*ret_count = count;
	return SECPOOL_OK;
}
