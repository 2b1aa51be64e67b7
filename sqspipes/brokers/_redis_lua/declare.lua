-- Makes the queues that are missing. ARGV from 3 on: name, id, max_receives, dead-letter queue, tags, of each.
for i = 3, #ARGV, 5 do
  local made, id, most, dead, tags = unpack(ARGV, i, i + 4)
  if call('HSETNX', prefix .. ':queues', made, id .. ' ' .. id .. ' ' .. most .. ' ' .. dead) == 1 and tags ~= '' then
    call('HSET', prefix .. ':tags', made, tags)
  end
end
return 1
