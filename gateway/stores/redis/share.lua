#!lua
-- Lend a backend's slots to workers, so many that all together never have more than its capacity,
-- and add up what the teams at its fair queue were charged.
-- Specification: share() of policies/slot_leases.py; a property test holds the two together.
--
-- KEYS[1]  the start of all names of the tag's backends, mh:{tag}:crew
-- ARGV     one msgpack {backend_id, worker, ttl_ms, capacity, kept, busy, spare, waiting,
--          {{priority, counter, waited_ms, team, slack}..} heads, {{priority, counter}..} floors,
--          {{priority, team, charge}..} lines} a backend
-- answers  {now_us, answer...}: {0, slots, rank, workers, idle, waiting, priority, counter (of the
--          rival), {counter...}, {waited_ms of the line's oldest elsewhere, 0 for none...}}, or
--          {9, message}
--
-- KEYS[1]:{backend}           HASH worker -> msgpack {slots, expiry_ms, seen_ms, busy, waiting,
--                             {{priority, counter, since_ms, team}..} the oldest of each line}
-- KEYS[1]:{backend}:floors    HASH priority -> counter
-- KEYS[1]:{backend}:line:{priority}:{team}   HASH `at`, its counter, and `seen_ms`
local call, min, max = redis.call, math.min, math.max
local FRESH_MS, IDLE_MS, KEPT_MS, PATIENCE_MS = 300, 2000, 600000, 50
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

local function behind(head, rival, elder)
  if head[1] ~= rival[1] then return head[1] < rival[1] end
  if head[2] > rival[2] + head[5] then return true end
  return elder and head[3] > elder + PATIENCE_MS
end

local function line_of(head) return head[1] .. ':' .. head[4] end

-- The oldest of each line, in the order in which lines are first spoken of.
local function oldest(heads)
  local places, found = {}, {}
  for _, head in ipairs(heads) do
    local line = line_of(head)
    local place = places[line]
    if not place then
      found[#found + 1], places[line] = head, #found + 1
    elseif head[3] < found[place][3] then
      found[place] = head
    end
  end
  return found
end

local function first_of(heads)
  local priority, counter = 0, 0
  for _, head in ipairs(heads) do
    if head[1] > priority then priority, counter = head[1], head[2]
    elseif head[1] == priority then counter = min(counter, head[2]) end
  end
  return {priority, counter}
end

local function others(crew, worker)
  local seen, heads = {taken = 0, rank = 0, workers = 1, idle = 0, waiting = 0}, {}
  local all = call('HGETALL', crew)
  for i = 1, #all, 2 do
    local name = all[i]
    local slots, expiry_ms, seen_ms, busy, waiting, said = unpack(cmsgpack.unpack(all[i + 1]))
    if name == worker then -- what it last said is told anew
    elseif expiry_ms <= now_ms then call('HDEL', crew, name)
    else
      seen.taken, seen.workers = seen.taken + slots, seen.workers + 1
      seen.idle, seen.waiting = seen.idle + max(0, slots - busy), seen.waiting + waiting
      if name < worker then seen.rank = seen.rank + 1 end
      if seen_ms > now_ms - FRESH_MS then
        -- The version before said of its first head alone, in numbers.
        for _, head in ipairs(type(said) == 'table' and said or {}) do heads[#heads + 1] = head end
      end
    end
  end
  seen.rival, seen.elders = first_of(heads), {}
  for _, head in ipairs(oldest(heads)) do seen.elders[line_of(head)] = head[3] end
  return seen
end

local function count(crew, lines)
  local answer = {}
  for i, line in ipairs(lines) do
    local priority, team, charge = unpack(line)
    local key = crew .. ':line:' .. priority .. ':' .. team
    local kept = call('HMGET', key, 'at', 'seen_ms')
    local at, seen_ms = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
    if seen_ms <= now_ms - IDLE_MS then
      at = max(at, tonumber(call('HGET', crew .. ':floors', priority) or 0))
    end
    at = max(0, at + charge)
    call('HSET', key, 'at', at, 'seen_ms', now_ms)
    call('PEXPIRE', key, KEPT_MS)
    answer[i] = at
  end
  return answer
end

local function raise(key, floors)
  for _, floor in ipairs(floors) do
    local was = tonumber(call('HGET', key, floor[1]) or 0)
    call('HSET', key, floor[1], max(was, floor[2]))
  end
  if #floors > 0 then call('PEXPIRE', key, KEPT_MS) end
end

local function share(packed)
  local backend, worker, ttl_ms, capacity, kept, busy, spare, waiting, heads, floors, lines =
    unpack(cmsgpack.unpack(packed))
  local crew = KEYS[1] .. ':' .. backend
  local seen = others(crew, worker)
  local entitled, rival = 0, seen.rival
  for _, head in ipairs(heads) do head[3] = now_ms - head[3] end -- since when, from here on
  if rival[1] == 0 then entitled = #heads + spare
  else
    for _, head in ipairs(heads) do
      if behind(head, rival, seen.elders[line_of(head)]) then break end
      entitled = entitled + 1
    end
  end
  local slots = 0
  if ttl_ms > 0 then
    slots = max(kept, min(capacity - seen.taken, busy + entitled))
    local firsts = oldest(heads)
    for _, head in ipairs(firsts) do head[5] = nil end -- the worker's own affair
    local said = {slots, now_ms + ttl_ms, now_ms, busy, waiting, firsts}
    call('HSET', crew, worker, cmsgpack.pack(said))
    call('PEXPIRE', crew, KEPT_MS)
  else
    call('HDEL', crew, worker)
  end
  local counters = count(crew, lines)
  raise(crew .. ':floors', floors)
  local elders = {}
  for i, line in ipairs(lines) do
    local since_ms = seen.elders[line[1] .. ':' .. line[2]]
    elders[i] = since_ms and max(1, now_ms - since_ms) or 0
  end
  return {0, slots, seen.rank, seen.workers, seen.idle, seen.waiting, rival[1], rival[2], counters,
    elders}
end

local answers = {now_us}
for i = 1, #ARGV do
  local ok, answer = pcall(share, ARGV[i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
